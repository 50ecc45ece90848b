"""What derivative rules ask for by name: how it is found, saved, and handed to them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from ..traced import Value, raw

Function: TypeAlias = Callable[..., Any]
Puller: TypeAlias = Callable[[Value, Sequence[Value]], Any]
JointPuller: TypeAlias = Callable[[Value, Sequence[Value]], Sequence[Value]]


HALF = frozenset({torch.float16, torch.bfloat16})


def in_float32(rule: Function) -> Function:
    """Decorator: numbers of 16 bits are computed with in float32, as in torch's kernels; squares overflow."""

    @functools.wraps(rule)
    def wide(*args: Value, **named: Value) -> Any:
        return rule(*map(widened, args), **{name: widened(value) for name, value in named.items()})

    return wide


def widened(x: Value) -> Value:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


class Slot(NamedTuple):
    """A place in ``[*arguments, result, *aux]``, or an attribute of what is there."""

    place: int
    attribute: str | None = None  # "shape", "dtype" or "device", which spare keeping the tensor


class Rule(NamedTuple):
    """A derivative rule ``(g, [wanted,] ...)`` and where to find what it asks for."""

    function: Function
    slots: tuple[Slot, ...]
    takes_wanted: bool = False
    takes_rest: bool = False  # `*tensors`: all arguments of a variadic primitive from there on


def slots_of(parameters: Sequence[str], aux: Sequence[str], variadic: bool) -> dict[str, Slot]:
    """What the rules of a primitive may ask for, by name."""
    if variadic:  # how many there are differs from call to call
        return {name: Slot(i) for i, name in enumerate(parameters[:-1])}
    slots = {name: Slot(i) for i, name in enumerate((*parameters, "ans", *aux))}
    for i, name in enumerate(parameters):
        slots |= {f"{name}_{what}": Slot(i, what) for what in ("shape", "dtype", "device")}
    return slots


def as_rule(function: Function, slots: Mapping[str, Slot], primitive: str, rest: str | None) -> Rule:
    """Read the names of the function's parameters after the first, which is g."""
    names = list(inspect.signature(function).parameters)[1:]
    wants = "wanted" in names
    if wants and names.pop(0) != "wanted":
        raise TypeError(f"{primitive}: a joint VJP is called with (g, wanted, ...)")
    takes_rest = rest is not None and names[-1:] == [rest]
    if takes_rest:
        names.pop()
    for name in names:
        if name not in slots:
            raise TypeError(f"the VJP of {primitive} asks for {name!r}, which is none of {', '.join(slots)}")
    return Rule(function, tuple(slots[name] for name in names), wants, takes_rest)


class Ruled(Protocol):
    """What a plan asks of a primitive."""

    joint: bool
    variadic: bool
    parameters: tuple[str, ...]
    slots: dict[str, Slot]
    rules: dict[str, Rule]
    kernels: dict[str, Rule]


class Plan:
    """What a primitive saves and runs when certain arguments are variables, made once for each such choice.

    Attributes:
        variables: the positions of those arguments.
        slots: what is saved, whole values first.
        unneeded: which of these no kernel asks for, so that they may change until recording does.
        pasts: whose value each of them is: the number of a variable among the parents, -1 for the result,
            ``None`` for a constant.
        pullers: for each variable the function (g, saved) -> its gradient; a joint rule is a single one.
        pull: the function (g, saved) -> the gradients of all variables.
        pull_plain: the same with raw kernels where there are some, for when nothing is traced.
    """

    __slots__ = (
        *("_kept", "_looks", "_op", "pasts", "pull"),
        *("pull_plain", "pullers", "slots", "unneeded", "variables"),
    )

    def __init__(self, op: Ruled, wanted: tuple[bool, ...]) -> None:
        self._op = op
        self.variables = variables = [i for i, wish in enumerate(wanted) if wish]
        keys = ["*"] if op.joint else [op.parameters[i] for i in variables]
        for key in keys:
            if key not in op.rules:
                raise NotImplementedError(
                    f"{op} has no derivative with respect to {key!r}; pass {key}.detach()"
                )
        rules = [op.rules[key] for key in keys]
        kernels = [op.kernels.get(key, op.rules[key]) for key in keys]
        slots = [slot for rule in (*rules, *kernels) for slot in rule.slots]
        if any(rule.takes_rest for rule in rules):
            slots += [Slot(i) for i in range(len(op.parameters) - 1, len(wanted))]
        self.slots = tuple(sorted(dict.fromkeys(slots), key=lambda slot: slot.attribute is not None))
        needed = {slot for kernel in kernels for slot in kernel.slots} if not op.variadic else self.slots
        self.unneeded = {i for i, slot in enumerate(self.slots) if slot not in needed}
        self._kept = [slot.place for slot in self.slots if slot.attribute is None]
        self._looks = [(slot.place, slot.attribute) for slot in self.slots if slot.attribute is not None]
        pasts = {Slot(i): n for n, i in enumerate(variables)} | {Slot(len(wanted)): -1}
        self.pasts = [pasts.get(slot) for slot in self.slots]

        self.pullers = [self._caller(rule, wanted) for rule in rules]
        self.pull = self._all(self.pullers)
        self.pull_plain = self._all([self._caller(kernel, wanted) for kernel in kernels])

    def save(self, known: Sequence[Value]) -> tuple[list[Value], list[tuple[Tensor, int]]]:
        """Of ``[*arguments, result, *aux]`` what the rules ask for, and the versions of the tensors in it."""
        saved, versions = [], []
        for place in self._kept:
            value = known[place]
            saved.append(value)
            if type(value) is Tensor:
                versions.append((value, value._version))
            elif isinstance(value, Tensor):
                value = raw(value)
                versions.append((value, value._version))
        for place, attribute in self._looks:
            saved.append(getattr(known[place], attribute))
        return saved, versions

    def _all(self, pullers: list[Puller]) -> JointPuller:
        """One function for all variables."""
        first, variables = pullers[0], self.variables
        if self._op.joint:
            return lambda g, saved: [shares[i] for shares in (first(g, saved),) for i in variables]
        if len(pullers) == 1:
            return lambda g, saved: (first(g, saved),)
        return lambda g, saved: [puller(g, saved) for puller in pullers]

    def _caller(self, rule: Rule, wanted: tuple[bool, ...]) -> Puller:
        """Hands the rule what it asks for."""
        function = rule.function
        places = [self.slots.index(slot) for slot in rule.slots]
        if rule.takes_rest:
            places += [self.slots.index(Slot(i)) for i in range(len(self._op.parameters) - 1, len(wanted))]
        if rule.takes_wanted:
            return lambda g, saved: function(g, wanted, *[saved[j] for j in places])
        if places == list(range(len(self.slots))):  # all that is saved, as it is for most
            return lambda g, saved: function(g, *saved)
        if not places:
            return lambda g, saved: function(g)
        if len(places) == 1:
            place = places[0]
            return lambda g, saved: function(g, saved[place])
        chosen = itemgetter(*places)
        return lambda g, saved: function(g, *chosen(saved))

    def name(self, slot: Slot) -> str:
        """How an error calls a saved value."""
        if self._op.variadic:
            return f"argument {slot.place}"
        name = next(name for name, each in self._op.slots.items() if each == slot)
        is_argument = slot.place < len(self._op.parameters)
        return "its result" if name == "ans" else f"its argument {name!r}" if is_argument else name
