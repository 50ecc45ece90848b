"""Refuse transforms that are none, and checkpoints of other ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..engines.rule.messages import kind
from .transform import Transform


def refuse_odd_transforms(given: Any) -> Sequence[Transform]:
    """What was given, if it is a sequence of transforms; none for ``None``.

    Raises:
        TypeError: it is something else.
    """
    if given is None:
        return ()
    if isinstance(given, Transform) or not isinstance(given, list | tuple):
        raise TypeError(f"transforms is {kind(given)}, expected a list, as [clip_norm(1.0)]")
    for each in given:
        if not isinstance(each, Transform):
            hint = f": call it, {each.__name__}(...)" if isinstance(each, type) else ""
            raise TypeError(f"there is {kind(each)} among the transforms, expected transforms{hint}")
    return given


def names_of(transforms: Sequence[Transform]) -> str:
    """What groups and checkpoints say of them."""
    return ", ".join(transform.name for transform in transforms)


def refuse_other_transforms(ours: str, i: int, group: Mapping[str, Any]) -> None:
    """Refuse a group of a checkpoint that was made with other transforms than the optimizer.

    Args:
        ours: the names of the optimizer's.
        i, group: the group in the checkpoint, and its index.

    Raises:
        ValueError: with both.
    """
    theirs = group.get("transforms", "")
    if theirs != ours:
        raise ValueError(
            f"loaded parameter group {i} was made with {_said(theirs)}, the optimizer with {_said(ours)}: "
            f"give the same, or set 'transforms' to {ours!r} in the loaded groups to begin anew with them"
        )


def _said(transforms: Any) -> str:
    return f"the transforms {transforms}" if transforms else "no transforms"
