"""The base of the optimizers that are a rule, its coefficients and its states, whatever the rule sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from .declared import DeclaredOptimizer
from .engines.step import Stepper
from .transforms.checks import names_of, refuse_odd_transforms
from .transforms.transform import Transform
from .validation.declarations import refuse_part_of_the_parameters
from .validation.options import at_least_zero, fraction, make_plain, not_nan, plain, refuse_odd_option

Params: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
# What a rule computes with: a tensor, or one number of it in a compiled kernel.
Value: TypeAlias = Any
Stored: TypeAlias = torch.dtype | Literal["8bit"]
StateDtype: TypeAlias = Stored | Mapping[str, Stored] | None
Rounding: TypeAlias = Literal["nearest", "stochastic", "kahan"] | None
Transforms: TypeAlias = Sequence[Transform]


class RuleOptimizer(DeclaredOptimizer):
    """What is common to optimizers of one number at a time and of whole tensors.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
        defaults: the options. Those of how a step is made are added where missing. ``"transforms"`` are what
            is done before and after the rule, see :mod:`.transforms`; those of the class come first.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        every = {**defaults, **self._STEP_OPTIONS, **defaults}
        if transforms := (*type(self).transforms, *refuse_odd_transforms(every.pop("transforms", ()))):
            self.transforms = transforms
        for transform in self.transforms:
            if twice := [name for name in transform.options if name in every]:
                raise ValueError(
                    f"{transform.name} has an option {twice[0]!r}, but so has {type(self).__name__}"
                )
            every.update(transform.options)
        if self.transforms:
            every["transforms"] = names_of(self.transforms)
        defaults = {name: plain(value) for name, value in every.items()}
        for name in self._STORAGE_OPTIONS:
            if defaults.get(name) is None:
                defaults.pop(name, None)
        self.defaults = defaults
        self._forget_plans()
        self.check_options(defaults)
        # Not super(): the next in line may be torch's optimizer of the same name, a base for isinstance().
        Optimizer.__init__(self, params, defaults)

    def _forget_plans(self) -> None:
        self._stepper = Stepper()
        self._read_formula()
        # What prepares gradients must see them without the scale.
        self._step_supports_amp_scaling = bool(self.defaults.get("fused")) and not self._prepares_gradients

    # -- what a subclass may extend --------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options out of range: the defaults, and those of each parameter group.

        What has one of the usual names is checked here: ``lr``, ``weight_decay`` and ``eps`` are at least 0,
        each of ``betas`` is in [0, 1), nothing is NaN. Extend it for your own;
        :mod:`torchopt_course.validation` has the usual checks.

        Raises:
            ValueError, TypeError, RuntimeError: with the value and what was expected.
        """
        if isinstance(options.get("lr"), Tensor) and options["lr"].numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(options['lr'].shape)}")
        for name, label in {"lr": "learning rate", "weight_decay": "weight_decay value"}.items():
            if name in options:
                at_least_zero(label, options[name])
        eps = options.get("eps")
        if eps is not None and not isinstance(eps, tuple | list):  # of some there are several
            at_least_zero("epsilon value", eps)
        if isinstance(options.get("betas"), tuple | list):
            for i, beta in enumerate(options["betas"]):
                if isinstance(beta, float | int):
                    fraction(f"beta parameter at index {i}", beta)
        for transform in self.transforms:
            transform.check_options(options)
        for name, value in options.items():
            not_nan(name, value)
            if name in self._options:
                refuse_odd_option(type(self).__name__, name, value, self._default_of(name))
        if options.get("fused") and options.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if options.get("fused") and options.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")

    # -- torch.optim.Optimizer -------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, see :meth:`torch.optim.Optimizer.add_param_group`.

        Raises:
            KeyError: no ``"params"``.
            ValueError: options out of range, a parameter that is already in another group.
            TypeError: the rule and its coefficients do not fit.
        """
        if "_stepper" not in vars(self):
            self._begin_for_torch()
        if isinstance(param_group, dict):
            if "params" not in param_group:
                raise KeyError(
                    f"a parameter group needs 'params', got {', '.join(map(repr, param_group)) or 'nothing'}"
                )
            make_plain(param_group)  # in place, as torch: the dictionary is the group
            self.check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        try:
            self._begin_group(len(self.param_groups) - 1)
        except Exception:
            self.param_groups.pop()
            raise

    def _begin_for_torch(self) -> None:
        """What is left to do where a subclass calls torch's own constructor, ``Optimizer.__init__``."""
        self.defaults = {**self._STEP_OPTIONS, **self.defaults}
        self._forget_plans()
        self.check_options(self.defaults)

    def _begin_group(self, i: int) -> None:
        """Look at a group that has just been added; what is raised takes it away again."""
        self._refuse_edited_transforms(self.param_groups[i])
        self._try_formula(self.param_groups[i])
        if self._parsed_rule.sees_several or self._skips_nonfinite:
            refuse_part_of_the_parameters(self._called)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "transforms": self.transforms} if self.transforms else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        Optimizer.__setstate__(self, state)
        self._forget_plans()
        self._mend_groups()

    def _complete_group(self, group: dict[str, Any]) -> None:
        """What an older checkpoint may lack, and numbers where others hold tensors."""
        make_plain(group)
        # An older checkpoint may lack options that were added since: they are off, as in the constructor.
        for name in self.defaults:
            group.setdefault(name, self._default_of(name))
        for param in group["params"]:
            if self.state.get(param, {}) is None:  # as ZeroRedundancyOptimizer marks the states of others
                del self.state[param]
            step = self.state[param].get("step") if self._counts_steps and param in self.state else None
            if step is not None and not isinstance(step, Tensor):
                self.state[param]["step"] = self._new_step(param, group, float(step))
