"""Read a rule: run it once on placeholders and write down what it does to them.

A rule is elementwise if all that it does are functions of one number at a time. The list of those that
every engine knows is in :mod:`.words`; a rule that keeps to it becomes a :class:`~.program.Program`, also
if it makes numbers of whole tensors by the reductions there (sums, norms, ...), which it then uses like
coefficients. Any other one is left to torch, which knows what it means for whole tensors: with other
elementwise functions (torch itself says which operations are ``pointwise``), or with shapes, sorting and
the like. One that makes numbers of several tensors must keep to the list: torch sees one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from .notes import SOME_NUMBER, RuleNotes
from .placeholders import Elsewhere, RuleError, Value
from .program import NUMBER, STATE
from .searches import Cut, cut


class Reading(NamedTuple):
    """What was found out about a rule.

    Attributes:
        cut: what it does, in words that every engine knows; ``None`` if only torch can run it.
        reason: why there is no program, or why it is not elementwise.
        is_elementwise: whether it does to each element what it would do if that stood alone.
    """

    cut: Cut | None
    reason: str
    is_elementwise: bool


def read(
    owner: str,
    call: Callable[..., Sequence[Any]],
    states: Sequence[str],
    numbers: Sequence[str],
    maximize: bool,
    renews: Sequence[str],
) -> Reading:
    """Read a rule.

    Args:
        owner: whose rule it is, for error messages.
        call: ``call(p, g, states, numbers)``, the last two dictionaries, gives the new ``p`` and states, then
            the new options.
        states, numbers: the names of the states that are kept, and of the coefficients that are numbers.
        maximize: whether it gets ``-g``.
        renews: the names of the options that it renews.

    Raises:
        TypeError: the rule asks for what no element could answer, or writes to what it is given.
    """
    # Whoever follows operations at present is to follow the step, not its preparation.
    with torch.inference_mode(False), _disable_current_modes(), torch._C._DisableFuncTorch():
        return _read(owner, call, states, numbers, maximize, renews)


def _read(
    owner: str,
    call: Callable[..., Sequence[Any]],
    states: Sequence[str],
    numbers: Sequence[str],
    maximize: bool,
    renews: Sequence[str],
) -> Reading:
    notes = RuleNotes(owner, renews)
    g = notes.given("g")
    given = {name: notes.given(STATE.format(name)) for name in states}
    coefficients = {name: Value(notes, NUMBER.format(name), SOME_NUMBER) for name in numbers}
    try:
        with _Listener(notes):
            results = call(notes.p, notes.say("neg", g) if maximize else g, given, coefficients)
            if notes.refusal:
                return _left_to_torch(notes, f"goes on after an error: it {notes.refusal}")
            tensors, options = results[: len(results) - len(renews)], results[len(results) - len(renews) :]
            registers = tuple(notes.result(value) for value in tensors)
            renewed = {name: notes.option(name, value) for name, value in zip(renews, options, strict=True)}
    except Elsewhere as why:
        return _left_to_torch(notes, str(why))
    except (NameError, AttributeError) as error:
        raise type(error)(f"{owner}.rule: {error}") from error
    except RuleError:
        raise
    except Exception as error:
        if str(error).startswith("super("):
            raise RuleError(
                f"{owner}.rule calls super() without arguments, which is for methods: call the rule of the "
                "class by its name, Parent.rule(...)"
            ) from error
        return _left_to_torch(notes, f"cannot be read: {type(error).__name__}: {error}")
    if notes.stranger:
        return _left_to_torch(notes, notes.stranger, is_elementwise=not notes.reduces)
    reason = notes.reduces and f"{owner}.rule {notes.reduces}"
    try:
        return Reading(cut(owner, notes.lines, registers, renewed), reason, not notes.reduces)
    except RuleError as error:
        raise RuleError(f"{owner}.rule {error}") from None


def _left_to_torch(notes: RuleNotes, why: str, *, is_elementwise: bool = False) -> Reading:
    """No program: torch runs the rule as it stands."""
    notes.refuse_alone(why)
    return Reading(None, f"{notes.owner}.rule {why}", is_elementwise)


class _Listener(TorchFunctionMode):
    """Hears of every call of torch while a rule is read."""

    def __init__(self, notes: RuleNotes) -> None:
        super().__init__()
        self._notes = notes

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        return self._notes.call(function, arguments, keywords or {})
