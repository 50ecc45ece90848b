"""Which operation of a function has a wrong derivative: each is tried on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import autograd as mini
from ..autograd.reverse import Leaf
from ..autograd.traced import Traced, Value, raw
from ..autograd.variable import ReverseLevel, tracked_variable

# How far two ways may be apart, relative to the largest element of the gradient: rounding of long sums for
# the exact ways, truncation plus round-off for differences, which are taken in float64 if f allows it.
EXACT = {torch.float64: 1e-9, torch.float32: 1e-4}
DIFFERENCES = {torch.float64: 1e-6, torch.float32: 2e-2}


class _Watch(ReverseLevel):
    """A level that writes down every operation with its arguments."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Value, ...]]] = []

    def apply(self, op: Any, args: tuple[Value, ...]) -> Value:
        if any(isinstance(arg, Traced) and arg.level is self for arg in args):
            self.seen.append((op, tuple(raw(arg) for arg in args)))
        return super().apply(op, args)


def culprit(f: Callable[..., Value], inputs: Sequence[Tensor]) -> str | None:
    """The first operation whose own VJP or JVP is wrong, judged by torch.autograd, else by differences."""
    level = _Watch()
    with level:
        f([tracked_variable(x, level, Leaf(x)) for x in inputs])
    for count, (op, args) in enumerate(level.seen):
        for i, arg in enumerate(args):
            if not (isinstance(arg, Tensor) and arg.is_floating_point()):
                continue

            def alone(x: Value, op: Any = op, args: tuple[Value, ...] = args, i: int = i) -> Value:
                return op(*args[:i], x, *args[i + 1 :])

            try:
                fault = _fault(alone, arg)
            except NotImplementedError:
                continue
            if fault:
                name = op.parameters[min(i, len(op.parameters) - 1)]
                place = f"operation {count + 1} of {len(level.seen)}, argument {name!r}"
                return f"the {fault} of {op} is wrong ({place})"
    return None


def _fault(f: Callable[[Value], Value], x: Tensor) -> str | None:
    """Which rule of a single operation gives something else than it should: "VJP", "JVP" or neither."""
    exact = EXACT.get(x.dtype, 2e-2)
    y, pull = mini.vjp(f, x)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(x.device, y.dtype)
    t = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)
    (mine,) = pull(u)
    leaf = x.clone().requires_grad_()
    output = f(leaf)
    if output.requires_grad:
        (truth,) = torch.autograd.grad(output, leaf, u, materialize_grads=True)
        allowed = exact
    else:  # made by something torch does not see through
        truth = mini.numerical.grad(lambda x: (f(x) * u).sum())(x)
        allowed = DIFFERENCES.get(x.dtype, 0.1)
    size = float(truth.abs().max()) + 1e-3 if truth.numel() else 1.0
    if truth.numel() and not bool(((mine - truth).abs() <= allowed * size).all()):
        return "VJP"
    moved = float((mini.jvp(f, (x,), (t,))[1] * u).sum())
    expected = float((truth * t).sum())
    return (
        "JVP"
        if not abs(moved - expected) <= 10 * allowed * max(1.0, abs(expected), size * t.numel())
        else None
    )
