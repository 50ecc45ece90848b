"""Finite differences: the derivative from values alone, as the lecture's second way.

.. math::  f'(x) = \\frac{f(x + h) - f(x - h)}{2 h} + O(h^2) + O(\\varepsilon / h)

The first error is that of cutting off the Taylor series, the second is round-off: both values are rounded to
ε, and their small difference is divided by a small number. A large step suffers from the one, a small step
from the other; :func:`error_against_step` shows it. The sum is least where both are alike: h ∝ ∛ε.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .traced import is_tensor, raw
from .transforms import Argnums, check_tensors, chosen, unchosen


def step_for(x: float, dtype: torch.dtype) -> float:
    """∛ε max(1, abs(x)): the step for central differences, relative to a large x, absolute for a small one.

    Rounded so that x + h - x is exactly h: otherwise the rounding of x + h alone would spoil several digits.
    """
    h = float(torch.finfo(dtype).eps ** (1 / 3) * max(1.0, abs(x)))
    there = float(torch.tensor(x, dtype=dtype) + torch.tensor(h, dtype=dtype))
    return there - x


def grad(func: Callable[..., Any], argnums: Argnums = 0, h: float | None = None) -> Callable[..., Any]:
    """A function that gives the gradient of the scalar function ``func`` by central differences.

    Two evaluations for each element: for checking, not for training.

    Args:
        func: returns a 0-d tensor or a number.
        argnums: which positional argument, or a tuple of several; each a tensor or a tuple, list or dict.
        h: the step; by default :func:`step_for` each element.

    Raises:
        ValueError: ``h`` is not positive; ``argnums`` out of range.
        TypeError: a chosen argument that is not made of floating-point tensors.
        RuntimeError: ``func`` returns something else than a single number.
    """
    if h is not None and not h > 0:
        raise ValueError(f"h must be positive, not {h}")

    def gradient(*args: Any) -> Any:
        leaves, spec = pytree.tree_flatten(chosen(args, argnums))
        leaves = [raw(x) for x in check_tensors(leaves, "numerical.grad: arguments")]

        def value(moved: Sequence[Tensor]) -> float:
            given = unchosen(args, argnums, pytree.tree_unflatten(list(moved), spec))
            with torch.no_grad():  # with copies, for it may write into its arguments
                result = func(*pytree.tree_map_only(Tensor, lambda x: raw(x).clone(), given))
            if is_tensor(result) and result.numel() != 1:
                raise RuntimeError(
                    "numerical.grad: the function must return a single number (a 0-d tensor), not shape "
                    f"{tuple(result.shape)}"
                )
            return float(result)

        gradients = []
        for k, x in enumerate(leaves):

            def in_one(moved: Tensor, k: int = k) -> float:
                return value([*leaves[:k], moved, *leaves[k + 1 :]])

            slopes = [slope(in_one, x, i, h) for i in range(x.numel())]
            gradients.append(torch.tensor(slopes, dtype=x.dtype, device=x.device).reshape(x.shape))
        return pytree.tree_unflatten(gradients, spec)

    return gradient


def slope(value: Callable[[Tensor], float], x: Tensor, i: int, h: float | None = None) -> float:
    """The derivative of ``value`` in element i of x (counted as if x were flat)."""
    at = float(x.reshape(-1)[i])
    step = step_for(at, x.dtype) if h is None else h
    ahead, behind = _moved(x, i, step), _moved(x, i, -step)
    # Divide by the distance that was gone, which rounding may have changed.
    return (value(ahead) - value(behind)) / float(ahead.reshape(-1)[i] - behind.reshape(-1)[i])


def _moved(x: Tensor, i: int, step: float) -> Tensor:
    moved = x.clone(memory_format=torch.contiguous_format)
    moved.view(-1)[i] += step
    return moved


@dataclass(frozen=True)
class StepErrors:
    """The error of finite differences against the step.

    Attributes:
        steps: h, descending.
        forward: errors of (f(x + h) - f(x)) / h.
        central: errors of (f(x + h) - f(x - h)) / 2h.
        best: the step that :func:`step_for` chooses.
    """

    steps: list[float]
    forward: list[float]
    central: list[float]
    best: float

    def __str__(self) -> str:
        rows = zip(self.steps, self.forward, self.central, strict=True)
        lines = [f"{h:9.1e}  {a:9.1e}  {b:9.1e}" for h, a, b in rows]
        return "\n".join(["        h    forward    central", *lines, f"chosen: h = {self.best:.1e}"])

    def plot(self, path: str | Path | None = None) -> Any:
        """The picture, both axes logarithmic, as a matplotlib figure; saved if a path is given."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name, errors, marker in (("forward", self.forward, "o"), ("central", self.central, "s")):
            axes.loglog(self.steps, [max(e, 1e-18) for e in errors], marker=marker, markersize=3, label=name)
        axes.axvline(self.best, color="grey", linestyle="--", label="chosen step")
        axes.set(xlabel="step h", ylabel="error", title="round-off on the left, truncation on the right")
        axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure


def error_against_step(
    func: Callable[[Tensor], Any], x: float, exact: float, steps: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float64,
) -> StepErrors:  # fmt: skip
    """Errors of finite differences of a function of one number, for steps from 1 down to round-off.

    Args:
        func: takes and returns a 0-d tensor.
        x: where.
        exact: the true derivative.
        steps: default 10⁰, 10^-½, ..., 10⁻¹⁵ (to 10⁻⁷ for float32).
        dtype: of the computation.
    """
    if steps is None:
        last = 30 if dtype == torch.float64 else 14
        steps = [10 ** (-k / 2) for k in range(last + 1)]

    def value(at: float) -> float:
        return float(func(torch.tensor(at, dtype=dtype)))

    return StepErrors(
        steps=list(steps),
        forward=[abs((value(x + h) - value(x)) / h - exact) for h in steps],
        central=[abs((value(x + h) - value(x - h)) / (2 * h) - exact) for h in steps],
        best=step_for(x, dtype),
    )
