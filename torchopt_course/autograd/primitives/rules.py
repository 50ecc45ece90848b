"""What derivative rules ask for by name: how it is found, saved, and handed to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor

from ..traced import Traced, Value, raw

if TYPE_CHECKING:
    from .table import Primitive

Function: TypeAlias = Callable[..., Any]
Puller: TypeAlias = Callable[[Value, Sequence[Value]], Any]


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


class Plan:
    """What a primitive saves and runs when certain arguments are variables, made once for each such choice.

    Attributes:
        variables: the positions of those arguments.
        slots: what is saved.
        pasts: whose value each of them is: the number of a variable among the parents, -1 for the result,
            ``None`` for a constant.
        pullers: for each variable the function (g, saved) -> its gradient; a joint rule is a single one.
        pull: the function (g, saved) -> the gradients of all variables.
    """

    pull: Puller
    pullers: list[Puller]
    __slots__ = ("_op", "pasts", "pull", "pullers", "slots", "variables")

    def __init__(self, op: Primitive, wanted: tuple[bool, ...]) -> None:
        self._op = op
        self.variables = variables = [i for i, wish in enumerate(wanted) if wish]
        keys = ["*"] if op.joint else [op.parameters[i] for i in variables]
        for key in keys:
            if key not in op.rules:
                raise NotImplementedError(
                    f"{op} has no derivative with respect to {key!r}; pass {key}.detach()"
                )
        rules = [rule for key in keys for rule in (op.rules[key], op.kernels.get(key)) if rule is not None]
        slots = [slot for rule in rules for slot in rule.slots]
        if any(rule.takes_rest for rule in rules):
            slots += [Slot(i) for i in range(len(op.parameters) - 1, len(wanted))]
        self.slots = tuple(dict.fromkeys(slots))
        pasts = {Slot(i): n for n, i in enumerate(variables)} | {Slot(len(wanted)): -1}
        self.pasts = [pasts.get(slot) for slot in self.slots]

        self.pullers = [self._puller(op.rules[key], op.kernels.get(key), wanted) for key in keys]
        first, pullers = self.pullers[0], self.pullers
        if op.joint:
            self.pull = lambda g, saved: [shares[i] for shares in (first(g, saved),) for i in variables]
        elif len(pullers) == 1:
            self.pull = lambda g, saved: (first(g, saved),)
        else:
            self.pull = lambda g, saved: [puller(g, saved) for puller in pullers]

    def save(self, known: Sequence[Value]) -> tuple[list[Value], list[tuple[Tensor, int]]]:
        """Of ``[*arguments, result, *aux]`` what the rules ask for, and the versions of the tensors in it."""
        saved, versions = [], []
        for place, attribute in self.slots:
            value = known[place]
            if attribute is not None:
                value = getattr(value, attribute)
            elif isinstance(value, Tensor):
                versions.append((value, value._version))
            elif isinstance(value, Traced):
                tensor = raw(value)
                versions.append((tensor, tensor._version))
            saved.append(value)
        return saved, versions

    def _puller(self, rule: Rule, kernel: Rule | None, wanted: tuple[bool, ...]) -> Puller:
        """Runs the kernel if nothing is traced, else the rule."""
        by_rule = self._caller(rule, wanted)
        if kernel is None:
            return by_rule
        by_kernel = self._caller(kernel, wanted)
        # What the forward computation leaves beside its result is there only if it saw plain tensors.
        made_below = [self.slots.index(slot) for slot in kernel.slots if slot.place > len(wanted)]

        def choose(g: Value, saved: Sequence[Value]) -> Value:
            if isinstance(g, Traced):
                return by_rule(g, saved)
            for value in saved:
                if isinstance(value, Traced):
                    return by_rule(g, saved)
            for j in made_below:
                if saved[j] is None:
                    return by_rule(g, saved)
            return by_kernel(g, saved)

        return choose

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
        return lambda g, saved: function(g, *[saved[j] for j in places])

    def name(self, slot: Slot) -> str:
        """How an error calls a saved value."""
        if self._op.variadic:
            return f"argument {slot.place}"
        name = next(name for name, each in self._op.slots.items() if each == slot)
        is_argument = slot.place < len(self._op.parameters)
        return "its result" if name == "ans" else f"its argument {name!r}" if is_argument else name
