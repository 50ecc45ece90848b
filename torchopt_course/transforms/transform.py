"""What a transform is: what is done to the gradient before a rule, and to the new weights after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

# What transforms compute with: a tensor, or one number of it in a compiled kernel.
Value: TypeAlias = Any


class Transform:
    """Base class of what changes an optimizer's rule without knowing it.

    A transform is written as an optimizer is: functions of one number at a time, coefficients, states::

        import torch as xp

        class noise_floor(Transform):
            '''Leave gradients out that are smaller than a bound.'''

            def __init__(self, floor):
                super().__init__(floor=floor)

            @staticmethod
            def before(p, g, floor):
                return xp.where(xp.abs(g) < floor, 0, g)

        optimizer = Adam(params, transforms=[noise_floor(1e-8)])

    Attributes:
        states: as of :class:`~torchopt_course.ElementwiseOptimizer`.
        optional_states: likewise.
        name: what it is called in checkpoints, the name of its class.
        options: its options and their defaults. They are options of every parameter group, where schedulers
            and users may change them, and checkpoints keep them.

    ``before(p, g, *states, *coefficients)`` returns the gradient that the rule gets, and
    ``after(p, new, g, *states, *coefficients)`` the new weights: ``new`` are those of the rule, ``p`` what
    they were before and ``g`` the gradient that the rule got. At least one of them is there. States are
    returned as a rule returns them, behind the value, by ``after`` if that is there and else by ``before``.
    Both may use what a rule may.

    ``coefficients(...)`` names what it needs, ``step``, ``first`` and any option of the group, and returns a
    dictionary; without it, the coefficients are the transform's options.

    Args:
        options: the options with their defaults, under names that no other option of the optimizer has.
    """

    states: ClassVar[tuple[str, ...]] = ()
    optional_states: ClassVar[Mapping[str, str]] = {}
    before: Callable[..., Any] | None = None  # no ClassVar: to pyright a method would be none
    after: Callable[..., Any] | None = None
    coefficients: ClassVar[Callable[..., Mapping[str, Any]] | None] = None
    # Whether the optimizer's steps are left out whose gradients are not finite.
    skips_nonfinite: ClassVar[bool] = False
    # Whether there is something to do with whole gradients before a step, for which no rule has a word.
    prepares_gradients: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        self.options = options

    @property
    def name(self) -> str:
        return type(self).__name__

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A new state tensor, like the parameter: zeros."""
        return torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)

    def prepared_gradient(self, param: Tensor, grad: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A gradient as the rule and all other transforms shall see it; ``grad`` itself must not change."""
        return grad

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options out of range: the defaults, and those of each parameter group.

        Raises:
            ValueError, TypeError, RuntimeError: with the value and what was expected.
        """

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


def copy_of(param: Tensor) -> Tensor:
    """A state that begins as the parameter; in a differentiable step, with its history."""
    return param.clone(memory_format=torch.preserve_format)
