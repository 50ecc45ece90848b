"""What the class of an optimizer declares, made use of: its rule, its coefficients, its states."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .engines.bucket import Coefficients, GroupOptions
from .engines.eight_bits import EIGHT_BITS, keys_of
from .engines.layout import is_sparse, sparse_made_dense
from .engines.rule.messages import line_of, said, say_where
from .engines.rule.parsed import ParsedRule
from .engines.rule.whole import WholeRule
from .engines.storage import wanted_storage
from .transformed import TransformedOptimizer
from .validation.declarations import refuse_mistakes, refuse_nan, requested_options
from .validation.options import plain, refuse_odd_groups, refuse_odd_option
from .validation.tensors import refuse_misfits


class DeclaredOptimizer(TransformedOptimizer):
    """An optimizer that is given by a rule, coefficients and the names of states."""

    # Options of how a step is made, with their defaults.
    _STEP_OPTIONS: ClassVar[Mapping[str, Any]]
    # Options of how states are stored: groups are without those that nobody has asked for, as torch's.
    _STORAGE_OPTIONS: ClassVar[tuple[str, ...]] = ()
    _FIXED_OPTIONS: ClassVar[Mapping[str, Any]] = {}  # the class's own: a checkpoint need not say them

    _parsed_rule: ParsedRule | WholeRule

    def _parse(self) -> ParsedRule | WholeRule:
        """The rule as the engines see it."""
        raise NotImplementedError

    def _made_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """What ``initial_state`` makes, if that can be a state."""
        raise NotImplementedError

    def _model_of_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """A tensor of the shape that a state must have; ``None`` if the parameter does not keep it."""
        raise NotImplementedError

    def sparse_gradients(self, group: Mapping[str, Any]) -> Literal["refused", "dense", "rows"]:
        raise NotImplementedError

    def _kept_in(
        self, name: str, param: Tensor, group: Mapping[str, Any]
    ) -> tuple[torch.dtype, torch.device] | None:
        """The dtype and device that a loaded state is brought to; ``None``: what torch does with it."""
        raise NotImplementedError

    def _complete_group(self, group: dict[str, Any]) -> None:
        """Add what an older checkpoint may lack."""
        raise NotImplementedError

    def _part(self, i: int) -> DeclaredOptimizer:
        return self

    def _restore(
        self,
        group: dict[str, Any],
        before: Mapping[str, Any],
        saved: Mapping[str, Any],
        entries: Mapping[Any, Any],
    ) -> None:
        """Mend a group as torch has loaded it: all states are of their parameter's dtype then.

        Args:
            group, before: the group as it is now, and as it was. What a checkpoint does not say of storage
                stays as it was.
            saved, entries: it and the states as they were saved.
        """
        for name in self._STORAGE_OPTIONS:
            if group.get(name) is None and name in before:
                group[name] = before[name]
        for param, key in zip(group["params"], saved["params"], strict=True):
            entry = entries.get(key) or {}
            for name, value in entry.items() if param in self.state else ():
                kept = self._kept_in(name, param, group) if isinstance(value, Tensor) else None
                if kept is not None:
                    self.state[param][name] = value.to(dtype=kept[0], device=kept[1])

    # -- the formula ---------------------------------------------------------------------------------

    def _read_formula(self) -> None:
        """Learn what the rule and its coefficients are called with; again whenever they are replaced."""
        cls = type(self)
        refuse_mistakes(cls)
        self._compose()
        self._parsed_rule = self._parse()
        self._source = (cls.rule, cls.rule.__code__, cls.coefficients)
        self._constructor = inspect.signature(cls.__init__).parameters
        self._needs = tuple(inspect.signature(self.coefficients).parameters)
        self._counts_steps = "step" in self._needs
        self._asks_first = "first" in self._needs
        self._options = tuple(name for name in self._needs if name not in ("step", "first"))
        switches = self.optional_states.values()
        of_the_step = [name for name in self._STEP_OPTIONS if name != "fused"]
        self._needed_options = (*self._options, *switches, *self.renews, *of_the_step)
        others = ("state_dtype", "rounding", "transforms", "capturable")
        self._plan_options = tuple(dict.fromkeys((*switches, *self._STEP_OPTIONS, *others)))

    def _renew_formula(self) -> bool:
        """Read the rule again if something that it consists of has changed; false if nothing has."""
        cls = type(self)
        if self._source == (cls.rule, cls.rule.__code__, cls.coefficients) and self._parsed_rule.holds():
            return False
        self._read_formula()
        return True

    def _default_of(self, option: str) -> Any:
        """The constructor's own default; where there is none, what it was called with."""
        parameter = self._constructor.get(option)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            return self.defaults.get(option)
        return parameter.default

    def _is_plain_pair(self, name: str, value: tuple[Any, ...]) -> bool:
        """Whether these are as many numbers as the option has by default: betas, most often."""
        default = self.defaults.get(name)
        return (
            type(default) is tuple
            and len(default) == len(value)
            and _PLAIN_OPTIONS.issuperset(map(type, value))
        )

    def _kept_states(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        options = requested_options(type(self), "optional_states", self.optional_states.values(), group)
        return (*self.states, *(name for name, option in self.optional_states.items() if options[option]))

    def _group_options(self, group: Mapping[str, Any], interceptor: str | None) -> GroupOptions:
        """What the options of a group ask of the engines."""
        self._refuse_edited_transforms(group)
        lists = group.get("foreach")
        lists = False if group.get("fused") is False and lists is None else lists
        return GroupOptions(
            self._kept_states(group),
            interceptor or refusal(group),
            lists,
            bool(group["differentiable"]),
            interceptor is not None,
            capturable=bool(group.get("capturable")),
        )

    def _coefficient_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the coefficients are computed of."""
        return requested_options(type(self), "coefficients", self._options, group)

    def _coefficients_after(self, group: Mapping[str, Any]) -> Coefficients:
        """The group's coefficients as a function of the number of steps already taken."""
        options = self._coefficient_options(group)
        are_plain = True
        for name, value in options.items():
            if type(value) in _PLAIN_OPTIONS or (type(value) is tuple and self._is_plain_pair(name, value)):
                continue
            are_plain = False
            options[name] = _scalar(plain(value))
            refuse_odd_option(type(self).__name__, name, options[name], self._default_of(name))
        differentiable, evaluate = group["differentiable"], self.coefficients
        counts_steps, asks_first = self._counts_steps, self._asks_first

        def after(age: Any) -> Mapping[str, Any]:
            if counts_steps:
                options["step"] = age + 1
            if asks_first:
                options["first"] = age == 0
            try:
                values = evaluate(**options)
            except Exception as error:
                where = f"{type(self).__name__}.coefficients({said(options)})"
                say_where(error, where + line_of(error))
                raise
            if are_plain or differentiable or isinstance(age, Tensor) or not isinstance(values, Mapping):
                return values
            return {name: value.item() if _is_on_the_host(value) else value for name, value in values.items()}

        return after

    def _try_formula(self, group: Mapping[str, Any]) -> None:
        """Find mistakes in a rule or its coefficients before the first step."""
        requested_options(type(self), "renews", self.renews, group)
        evaluate = self._coefficients_after(group)
        kept = self._kept_states(group)
        try:
            with torch.no_grad():
                values = evaluate(0)
        except Exception:
            return  # an option may be set later; else the step will say it
        self._parsed_rule.specialize(kept, bool(group["maximize"]), values)
        refuse_nan(type(self), values)

    # -- state -----------------------------------------------------------------------------------------

    def _has_states(self, param: Tensor, group: Mapping[str, Any]) -> bool:
        raise NotImplementedError

    def complete_state(self, param: Tensor, group: Mapping[str, Any]) -> list[str]:
        """Create what is missing in a parameter's state; returns the names of what was created."""
        new = self._missing_states(param, group)
        if new:  # what may fail has not: from here on things change
            self.state.setdefault(param, {}).update(new)
        self._drop_given_up(param, group)
        return list(new)

    def _missing_states(self, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        own = self.state.get(param, {})
        new: dict[str, Tensor] = {}
        if self._counts_steps and own.get("step") is None:  # first, as in torch's checkpoints
            new["step"] = self._new_step(param, group)
        for name in self._kept_states(group):
            if not keys_of(own, name):
                made = self._made_state(name, param, group)
                if made is not None:
                    new[name] = made
        return new

    def _named_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """What ``initial_state`` makes; an error says for which parameter."""
        # A state that begins as the parameter has its derivative; a group that is loaded may lack the option.
        followed = torch.is_grad_enabled() and bool(group.get("differentiable"))
        try:
            with torch.set_grad_enabled(followed):
                return self._begun_state(name, param, group)
        except Exception as error:
            say_where(error, f"{type(self).__name__}.initial_state({name!r}) of {self._place_of(param)}")
            raise

    @staticmethod
    def _new_step(param: Tensor, group: Mapping[str, Any], value: float = 0.0) -> Tensor:
        """The step count as torch keeps it: on the CPU, unless an option says it lives with the parameter."""
        at_home = bool(group.get("capturable") or group.get("fused"))
        double = torch.get_default_dtype() == torch.float64 and not group.get("fused")
        return torch.tensor(
            value, dtype=torch.float64 if double else torch.float32, device=param.device if at_home else "cpu"
        )

    def _refuse_odd_edits(self) -> None:
        """Groups and state are the user's to edit: what cannot be stepped any more is named."""
        refuse_odd_groups(self.param_groups, lambda group: self._needed_options)
        if not isinstance(self.state, Mapping):
            raise TypeError(f"the optimizer's state must be a dictionary, got {type(self.state).__name__}")

    def _without_sparse(self, group: Mapping[str, Any], grads: list[Tensor | None]) -> list[Tensor | None]:
        """Sparse gradients made dense, unless the rule may visit their rows alone."""
        pairs = zip(group["params"], grads, strict=True)
        # Rows that a rule does not change are what they were when rounded to the nearest; in 8 bits whole
        # blocks have a scale.
        in_8_bits = any(wanted_storage(group, name) == EIGHT_BITS for name in self._kept_states(group))
        in_rows = group.get("rounding") in (None, "nearest") and not in_8_bits

        def wanted() -> str:
            said = self.sparse_gradients(group)
            return "dense" if said == "rows" and (self.transforms or not in_rows) else said

        return [sparse_made_dense(wanted, param, grad) for param, grad in pairs]

    def _refuse_misfits(self, i: int, grads: list[Tensor | None]) -> None:
        """Refuse a gradient or a state that does not fit its parameter."""
        group = self.param_groups[i]
        names = (*self._kept_states(group), *(["step"] if self._counts_steps else []))
        for position, (param, grad) in enumerate(zip(group["params"], grads, strict=True)):
            if grad is not None:
                takes_sparse = is_sparse(grad) and self.sparse_gradients(group) != "refused"
                where, owner = self._where(i, position), type(self).__name__
                own = self.state.get(param, {})
                alike = self._parsed_rule.states_are_alike
                refuse_misfits(where, param, grad, own, names, group, owner, takes_sparse, alike)


def refusal(group: Mapping[str, Any]) -> str | None:
    """Why no fused engine may take a group, whatever its tensors are like."""
    if group["differentiable"]:
        return "differentiable=True"
    if group.get("fused") is False:
        return "fused=False"
    if group.get("fused") is None and group.get("foreach") is not None:
        return f"foreach={group['foreach']}"
    return None


_PLAIN_OPTIONS = frozenset({float, int, bool})


def _is_on_the_host(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.numel() == 1


def _scalar(value: Any) -> Any:
    """An option as a number or 0-d tensor: a 1-element tensor may come in any shape."""
    if isinstance(value, Tensor) and value.dim():
        return value.squeeze()
    if isinstance(value, tuple | list):
        return tuple(_scalar(item) for item in value)
    return value
