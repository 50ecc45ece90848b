"""Views: values that share the memory of another one, and see what is written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from .switched_off import is_constant
from .traced import Operation, Traced, Value, hold, raw

# An operation that took a view, and its other arguments.
Step: TypeAlias = tuple[Operation, tuple[Value, ...]]


class Follows(Traced):
    """A view: it shares the memory of another value, its base, and sees what is written there.

    Attributes:
        base: whose memory it is; itself no view.
        above: what it was taken from: the base, or another view of it.
        step: how.
        seen: how often the base had been written to when this view got its past.
    """

    base: Traced
    above: Traced
    step: Step
    seen: int
    _past: Any

    @classmethod
    def taken(cls, above: Traced, step: Step, data: Value, past: Any) -> Follows:
        view = hold(cls, data)
        view._set(above, step)
        view._past, view.seen = past, view.base.times_written
        return view

    def _set(self, above: Traced, step: Step) -> None:
        self.base = above.base if isinstance(above, Follows) else above
        self.above, self.step, self.level, self.seen = above, step, above.level, -1

    @property
    def written_at(self) -> int:  # type: ignore[override]
        return self.base.written_at

    @property
    def steps(self) -> list[Step]:
        """The way from the base to this view."""
        steps: list[Step] = []
        value: Traced = self
        while isinstance(value, Follows):
            steps.append(value.step)
            value = value.above
        return steps[::-1]

    def follow(self) -> None:
        """If the base was written to since, take the view again for its new past. The memory is the same."""
        base = self.base
        if self.seen == base.times_written:
            return
        if is_constant(base):
            raise RuntimeError("a view of a tensor that was detached in place, and written to afterwards")
        above: Traced = self
        while isinstance(above, Follows):
            above = above.above
            if 0 <= self.seen < above.reshaped:
                raise RuntimeError(
                    f"a view {tuple(self.shape)} of a tensor that got another shape in place afterwards, "
                    "which it cannot follow; take the view after that"
                )
        self.adopt(replay(base, self.steps))

    def adopt(self, other: Traced) -> None:
        self.seen = self.base.times_written
        super().adopt(other)


def replay(base: Value, steps: Sequence[Step]) -> Value:
    """Take a view of this base, by the same steps."""
    for op, rest in steps:
        base = op(base, *rest)
    return base


def memory_of(base: Value) -> tuple[Any, Any]:
    """How its numbers lie: the sizes and strides."""
    return tuple(base.shape), tuple(raw(base).stride())
