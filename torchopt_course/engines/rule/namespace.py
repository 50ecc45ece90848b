"""What ``xp`` is to a rule: torch, with reductions that say over what.

``xp.norm(g)`` is of the parameter's own tensor, ``xp.norm(g, over="group")`` of all tensors of its group,
``xp.norm(g, over="all")`` of all tensors that the optimizer steps, ``xp.norm(g, over="row")`` of each of the
tensor's rows. Two reductions are here that torch does
not have, or for vectors alone: ``xp.rms`` and ``xp.dot``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .placeholders import RuleError, Value
from .words import COMPOSED, LINES, OVER, REDUCTIONS, REDUCTIONS_OF_TORCH, TENSORS, word_of, word_of_lines


class Namespace(ModuleType):
    """torch, but for the functions that are given."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _over(function: Any, name: str) -> Any:
    """A reduction of torch's that takes ``over``."""

    def reduction(*arguments: Any, **keywords: Any) -> Any:
        if "over" not in keywords:
            return function(*arguments, **keywords)
        given = (*arguments, *keywords.values())
        known = next((value for value in given if type(value) is Value), None)
        if known is not None:
            return known._notes.call(function, arguments, keywords)
        over = keywords.pop("over")
        if over in LINES:
            return _of_lines(function, arguments, keywords, over)
        if over != OVER[0]:
            raise RuleError(
                f"{name}(over={over!r}) was called with one tensor: numbers of several tensors are for rules "
                "with what is on the list for kernels alone; engine_report() says what is not"
            )
        return function(*arguments, **keywords)

    reduction.__name__ = name
    return reduction


def _of_lines(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], over: str) -> Any:
    """A reduction over each row or each column of a tensor of torch's."""
    said = word_of(function, arguments, keywords)
    if not said:
        raise RuleError(
            f"{function.__name__}() with over={over!r} takes the tensor, and a norm's order, alone"
        )

    def say(word: str, x: Tensor) -> Any:
        return TENSORS[word_of_lines(word, over) if word in REDUCTIONS else word](x)

    word, (x,) = said
    return COMPOSED[word](say, x) if word in COMPOSED else say(word, x)


def _rms(x: Any, *, over: str = OVER[0]) -> Any:
    """The root of the mean square."""
    return torch.sqrt(XP.mean(x * x, over=over))


def _dot(x: Any, y: Any, *, over: str = OVER[0]) -> Any:
    """The sum of the products, whatever the shape."""
    return XP.sum(x * y, over=over)


XP = Namespace("torch")
for _name in REDUCTIONS_OF_TORCH:
    setattr(XP, _name, _over(getattr(torch, _name), _name))
XP.rms, XP.dot = _rms, _dot  # type: ignore[attr-defined]
