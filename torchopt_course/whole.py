"""The base of optimizers whose rule needs whole tensors: factored states, matrix products, decompositions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .engines.rule.parsed import Rule
from .engines.rule.whole import WholeRule, for_transforms
from .engines.storage import OPTIONS as STORAGE
from .optimizer import RuleOptimizer
from .validation.declarations import fitting_beside


class TensorOptimizer(RuleOptimizer):
    r"""Base class of optimizers whose rule gets whole tensors, and may use all of torch.

    As :class:`~torchopt_course.ElementwiseOptimizer`, with all that comes with it (groups, named parameters,
    hooks, closures, ``maximize``, schedulers, checkpoints, deep copies), for what one number at a time cannot
    say::

        class Shampoo(TensorOptimizer):
            '''W -= lr * L^(-1/4) G R^(-1/4) (Gupta et al., 2018).'''
            states = ("left", "right")

            def __init__(self, params, lr=0.1, eps=1e-4):
                super().__init__(params, dict(lr=lr, eps=eps))

            def why_not(self, param):
                return super().why_not(param) or ("it is no matrix" if param.dim() != 2 else None)

            def initial_state(self, name, param, group):
                size = param.shape[0 if name == "left" else 1]
                return group["eps"] * torch.eye(size, dtype=param.dtype, device=param.device)

            @staticmethod
            def coefficients(lr):
                return dict(lr=lr)

            @staticmethod
            def rule(p, g, left, right, lr):
                left, right = left + g @ g.T, right + g.T @ g
                return p - lr * power(left, -1 / 4) @ g @ power(right, -1 / 4), left, right

    Attributes:
        states: names of the states.
        optional_states: names of states that are kept only while an option is truthy, with that option's
            name; where it is not, the rule gets ``None`` and returns what it likes.
        stacked: whether parameters of the same shape, dtype and device that have taken equally many steps are
            updated together: the rule then always sees one dimension more, in front, in ``p``, ``g`` and
            every state, and a matrix product becomes a batched one.

    ``rule(p, g, *states, *coefficients)`` returns the new ``p`` and states in the same order (without states,
    just ``p``). All that it gets are copies, so it may write to them. A new value has the shape of the old
    one; its dtype may be another that can be cast. A state that ``initial_state`` did not make for a
    parameter is ``None``, and so must be the new one. The rule runs on every device; of a ``DTensor`` it gets
    the whole, gathered, on each process, which keeps its own part of the result.

    ``coefficients(...)`` is as in an ``ElementwiseOptimizer``; what it returns may be anything, text too.

    All new values of all parameters are there before the first is written: a step needs memory for them, and
    one that fails has changed nothing.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
        defaults: the options; numpy's numbers become Python's. ``maximize`` and ``differentiable`` (both
            ``False``) are added where missing.

    Raises:
        TypeError: something that is not a tensor among ``params``; a mistake in the class.
        ValueError: an option out of range, a non-leaf parameter, a parameter in two groups, a parameter that
            :meth:`why_not` says is not for this rule.
        RuntimeError: in :meth:`step`, a gradient or state that does not fit its parameter, ``initial_state``
            made something that is no state, or what the rule itself raises. Nothing has been updated then,
            and the parameter is named.
    """

    stacked: ClassVar[bool] = False

    _STEP_OPTIONS: ClassVar[Mapping[str, Any]] = {"maximize": False, "differentiable": False}

    # -- what a subclass may extend --------------------------------------------------------------------

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """A new state tensor of any shape and dtype; ``None`` if the parameter has no such state.

        Zeros like the parameter, unless you write something else. It is on the parameter's device, or one
        number on the host. It keeps its dtype: a checkpoint is loaded into that which this method gives.
        """
        return torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)

    def why_not(self, param: Tensor) -> str | None:
        """Why the rule cannot take a parameter; ``None`` if it can. Extend it for your own."""
        if param.is_complex():
            return f"it is complex ({param.dtype}): optimize torch.view_as_real() of it"
        if not param.is_floating_point():
            return f"it is of dtype {param.dtype}"
        if param.layout != torch.strided:
            return f"it is sparse ({param.layout})"
        return None

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense"]:
        """What is done with sparse gradients: ``"refused"`` (default), or made ``"dense"``."""
        return "refused"

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        for name in ("fused", "foreach"):
            if options.get(name) and name not in self._options:
                raise RuntimeError(
                    f"{type(self).__name__} has no {name} engine: its rule takes whole tensors, torch runs it"
                )
        for name in STORAGE:
            if options.get(name) is not None and name not in self._options:
                raise RuntimeError(
                    f"{type(self).__name__} has no {name}: its rule takes whole tensors, and initial_state "
                    "says in which dtype each state is kept"
                )

    # -- what the base asks ----------------------------------------------------------------------------

    def _parse(self) -> WholeRule:
        cls = type(self)
        if cls.renews:
            raise TypeError(
                f"{cls.__name__} declares renews = {cls.renews}, which is for an ElementwiseOptimizer: a "
                "rule of whole tensors keeps numbers as states, of shape ()"
            )
        names = (*self.states, *self.optional_states)
        return WholeRule(self._called, self.rule, names, stacked=type(self).stacked and not self.transforms)

    def _own_rule(self) -> Rule:
        return for_transforms(type(self).rule, stacked=type(self).stacked)

    def _begin_group(self, i: int) -> None:
        super()._begin_group(i)
        self._refuse_unsuited(i, ValueError)

    def _refuse_unsuited(self, i: int, error: type[Exception]) -> None:
        for position, param in enumerate(self.param_groups[i]["params"]):
            if reason := self.why_not(param):
                raise error(f"{type(self).__name__} cannot take {self._where(i, position)}: {reason}")

    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None:
        self._refuse_unsuited(i, RuntimeError)
        super()._refuse_misfits(i, grads)

    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool:
        return False  # there is nothing to be done for one that has no gradient

    def _made_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        made = self._named_state(name, param, group)
        where = (
            f"the state {name!r} that {type(self).__name__}.initial_state made for {self._place_of(param)}"
        )
        return fitting_beside(where, made, param)

    def _model_of_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        return self._made_state(name, param, group)

    def _kept_in(
        self, name: str, param: Tensor, group: Mapping[str, Any]
    ) -> tuple[torch.dtype, torch.device] | None:
        is_ours = name in self.states or name in self.optional_states
        model = self._model_of_state(name, param, group) if is_ours else None
        return None if model is None else (model.dtype, model.device)
