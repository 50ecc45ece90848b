"""The base of optimizers that see one number at a time, and of the one that you write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .declared import refusal
from .engines.bucket import GroupOptions
from .engines.eight_bits import CODE, coded_keys, keys_of
from .engines.layout import in_layout_of, is_sparse, zeros_where
from .engines.rule.parsed import ParsedRule
from .engines.storage import OPTIONS, as_wanted, compensation, compensations, rounding_of, wanted_dtype
from .optimizer import RuleOptimizer
from .validation.declarations import fitting
from .validation.storage import refuse_idle_storage, refuse_odd_storage, warn_of_lost_squares


class ElementwiseOptimizer(RuleOptimizer):
    r"""Base class of optimizers that treat each element of each parameter alike.

    A subclass writes down its update once and gets everything else: validation, state, checkpoints that
    ``torch.optim`` understands, and four engines: fused on the CPU, fused on CUDA, over lists of tensors
    (foreach), and eager, which can do all that torch can::

        import torch as xp

        class Lion(ElementwiseOptimizer):
            '''p -= lr * sign(interpolated momentum), decoupled decay (Chen et al., 2023).'''
            states = ("exp_avg",)

            def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
                super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

            @staticmethod
            def coefficients(lr, betas, weight_decay):
                return dict(lr=lr, mix=1 - betas[0], fresh=1 - betas[1], decay=lr * weight_decay)

            @staticmethod
            def rule(p, g, exp_avg, lr, mix, fresh, decay):
                update = exp_avg + mix * (g - exp_avg)
                return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)

    Attributes:
        states: names of the states that are always kept, each a tensor like its parameter, at first zero.
        optional_states: names of states that are kept only while an option is truthy, with that option's
            name; where it is not, the rule gets ``None`` and returns what it likes.
        renews: names of options that each step renews, numbers of which a group has one: after the states
            the rule returns their new values, made of coefficients and of numbers over several tensors.

    ``rule(p, g, *states, *optional_states, *coefficients)`` returns the new ``p`` and states in the same
    order (without states, just ``p``). It sees one number of each at a time: it uses operators and functions
    of the module global ``xp`` only; ``import torch as xp`` makes the rule run as it stands. It is read once,
    and each engine does what it does. Norms, sums and the like of a whole tensor are numbers that the
    formula goes on with, also those of all tensors of the group or of the optimizer
    (``xp.norm(g, over="all")``). A rule with more than that runs on whole tensors of torch.
    docs/what_a_rule_sees.md has the list of functions, and says what becomes of others.

    ``coefficients(...)`` names what it needs: ``step`` (1, 2, ...; then every parameter keeps a ``"step"``
    as in torch), ``first`` (true in the first step of a parameter) and any of the group's options. It
    returns a dictionary. Numbers may change from step to step; ``None`` and booleans choose the terms of
    the formula, and each choice is compiled into a kernel of its own.

    Two more options are for memory. ``state_dtype``: a dtype for all states, or ``"8bit"``, or a dictionary
    with one for some of them by name; the rule computes in float32 all the same. ``rounding``, of what is
    stored in 8 or 16 bits: ``"nearest"``, ``"stochastic"`` (up or down by chance, right in the mean;
    ``rounding_seed`` among a group's options, 0 by default) or ``"kahan"`` (of 16 bits: what is lost is kept,
    in one more state, called ``"compensation"`` or ``"<state>_compensation"``). Who gives either of them
    computes in float32 on every engine. docs/low_precision.md has more.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
        defaults: the options; numpy's numbers become Python's. ``maximize`` (default ``False``), ``foreach``,
            ``fused`` (``None``) and ``differentiable`` (``False``) are added where missing. ``fused=None``
            picks the fastest engine that is right for each parameter, ``fused=True`` insists on the fused
            one, ``fused=False`` and ``foreach=False`` give the eager reference.

    Raises:
        TypeError: something that is not a tensor among ``params``; a mistake in the class: a rule whose
            parameters or results do not fit, or that asks for more than one number can answer.
        ValueError: an option out of range, a non-leaf parameter, a parameter in two groups.
        RuntimeError: options that exclude one another. In :meth:`step`: a gradient or state that does not
            fit its parameter, or ``fused=True`` where that is impossible; nothing has been updated then.
    """

    _STEP_OPTIONS: ClassVar[Mapping[str, Any]] = {
        "foreach": None, "maximize": False, "differentiable": False, "fused": None
    }  # fmt: skip
    _STORAGE_OPTIONS = OPTIONS

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        """A new state tensor: zeros like the parameter, also in memory layout."""
        if is_sparse(param):
            return zeros_where(param)
        if param.layout != torch.strided:
            return torch.zeros_like(param, requires_grad=False)
        return torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        """What is done with sparse gradients.

        ``"rows"``: the rule changes nothing where a gradient is zero, so only the rows that a sparse gradient
        has are visited; ``"dense"``: they are made dense; ``"refused"`` (default): an error, as in torch.
        """
        return "refused"

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        refuse_odd_storage(type(self).__name__, (*self.states, *self.optional_states), options)

    # -- what the base asks ----------------------------------------------------------------------------

    def _parse(self) -> ParsedRule:
        before, states = self.__dict__.get("_parsed_rule"), (*self.states, *self.optional_states)
        return ParsedRule(self._called, self.rule, states, before, tuple(self.renews))

    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool:
        own, names = self.state.get(param, {}), self._kept_states(group)
        keys = [keys_of(own, name) for name in names]
        fit = all(several and getattr(own[several[0]], "shape", None) == param.shape for several in keys)
        return fit and (not self._counts_steps or own.get("step") is not None)

    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None:
        group, owner = self.param_groups[i], type(self).__name__
        edited = {name: group.get(name) for name in group if name != "rounding_seed"}
        refuse_odd_storage(owner, (*self.states, *self.optional_states), edited)
        refuse_idle_storage(owner, group, self._kept_states(group))
        super()._refuse_misfits(i, grads)

    def _begin_group(self, i: int) -> None:
        group = self.param_groups[i]
        refuse_idle_storage(type(self).__name__, group, self._kept_states(group))
        if group.get("rounding") == "stochastic":
            group.setdefault("rounding_seed", 0)
            group.setdefault("rounding_step", 0)
        super()._begin_group(i)
        if rounding_of(group) is not None:
            states, squares = self._kept_states(group), self._parsed_rule.squares
            warn_of_lost_squares(type(self).__name__, group, states, squares)

    def _group_options(self, group: Mapping[str, Any], interceptor: str | None) -> GroupOptions:
        wanted = group.get("state_dtype")
        return (
            super()
            ._group_options(group, interceptor)
            ._replace(
                rounding=rounding_of(group),
                state_dtypes=tuple(wanted.items()) if isinstance(wanted, Mapping) else wanted,
            )
        )

    def _made_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        where = f"the state {name!r} that {type(self).__name__}.initial_state made"
        state = fitting(where, self._named_state(name, param, group), param)
        return state.to(wanted_dtype(group, name) or state.dtype)

    def _model_of_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        return param

    def _kept_in(
        self, name: str, param: Tensor, group: Mapping[str, Any]
    ) -> tuple[torch.dtype, torch.device] | None:
        ours = (*self.states, *self.optional_states)
        for codes, scales in map(coded_keys, ours):
            if name in (codes, scales):
                return CODE if name == codes else torch.float32, param.device
        owners = {each: each for each in ours}
        if group.get("rounding") == "kahan":
            owners |= {compensation(each): each for each in ours}
        dtype = wanted_dtype(group, owners[name]) if name in owners else None
        return None if dtype is None else (dtype, param.device)

    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]:
        names, made = self._kept_states(group), self._missing_states(param, group)
        own = self.state.get(param, {})
        after: dict[str, Tensor] = {}
        new = {name: made[name] for name in made if name not in names}
        for name in names:
            stored = as_wanted(name, param, made if name in made else own, group)
            after |= stored
            new |= stored if name in made else {}
        lost = compensations(rounding_of(group), param, names, after)
        for name, tensor in lost.items():
            if own.get(name) is None or own[name].dtype != tensor.dtype:
                new[name] = torch.zeros_like(tensor, memory_format=torch.preserve_format, requires_grad=False)
        # What may fail has not: from here on things change.
        state = self.state.setdefault(param, {}) if new else own
        state.update(new)
        state.update({key: value for key, value in after.items() if value is not state.get(key)})
        # What was kept otherwise, and of a rounding that was given up: it would be added if that came back.
        others = [key for name in names for key in (name, *coded_keys(name))]
        for key in (*others, *map(compensation, ("p", *self.states, *self.optional_states))):
            if key in state and key not in lost and key not in after:
                del state[key]
        self._drop_given_up(param, group)
        # A checkpoint may bring states in another memory layout than the parameter has: same numbers, but the
        # fused engine walks through all of them in one order, and no engine has use for sparse ones.
        for name in (*names, *lost):
            if name in state and (is_sparse(state[name]) or refusal(group) is None):
                state[name] = in_layout_of(param, state[name])
        return list(new)
