"""Finite differences along a direction, with an estimate of their own error (Ridders, 1982).

Central differences with steps h, h/4, h/16, ... have errors in h², h⁴, ...; each pair of steps removes one of
them (Richardson's extrapolation). How far neighbours in that table are apart tells how good they are, so the
best is taken for each result, and there is no step to choose. Ten digits are usual in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FIRST, SHRINK, LEVELS = 1e-2, 4.0, 10
ENOUGH = 1e-11


class Side(NamedTuple):
    """(f(x + h t) - f(x)) / h and (f(x) - f(x - h t)) / h."""

    h: float
    ahead: Tensor
    behind: Tensor


class Differences(NamedTuple):
    """The derivative along a direction, for each result.

    Attributes:
        value: where it starts.
        slope: the extrapolated central difference; nan where no step gave a number.
        error: how far it may be off; infinite where nothing converged.
        sides: one-sided differences, for falling steps.
    """

    value: Tensor
    slope: Tensor
    error: Tensor
    sides: list[Side]


def along(
    f: Callable[[Sequence[Tensor]], list[Tensor]],
    x: Sequence[Tensor],
    t: Sequence[Tensor],
    levels: int = LEVELS,
) -> Differences:
    """The derivative of all results of f (which are taken as flat, one after the other) along t."""

    def at(h: float) -> Tensor:
        moved = f([a + h * b for a, b in zip(x, t, strict=True)])
        return torch.cat([y.detach().double().reshape(-1) for y in moved])

    here = f(x)
    sizes = [y.numel() for y in here]
    base = torch.cat([y.detach().double().reshape(-1) for y in here])
    rounded = torch.cat([torch.finfo(y.dtype).eps * y.detach().double().abs().reshape(-1) for y in here])
    slope, error = torch.full_like(base, torch.nan), torch.full_like(base, torch.inf)
    sides: list[Side] = []
    above: list[Tensor] = []  # the row of the table for the last step: fewer and fewer error terms
    h = FIRST
    for _ in range(LEVELS):
        ahead, behind = at(h), at(-h)
        sides.append(Side(h, (ahead - base) / h, (base - behind) / h))
        row, power = [(ahead - behind) / (2 * h)], 1.0
        for old in above:
            power *= SHRINK**2
            new = (power * row[-1] - old) / (power - 1)
            apart = torch.maximum((new - row[-1]).abs(), (new - old).abs()).nan_to_num(nan=torch.inf)
            # Two estimates may be close by chance; then those of the other results are not. And no difference
            # is better than the rounding of the values, half an ε each, divided by the step.
            typical = torch.cat(
                [apart[:0], *(a.median().expand(len(a)) for a in torch.split(apart, sizes) if len(a))]
            )
            apart = torch.maximum(apart, torch.maximum(1e-3 * typical, rounded / (2 * h)))
            slope, error = torch.where(apart < error, new, slope), torch.minimum(error, apart)
            row.append(new)
        above = row[:5]
        h /= SHRINK
        if len(sides) > 2 and bool((error <= ENOUGH * (slope.abs() + base.abs())).all()):
            break
    return Differences(base, slope, error, sides)


def singularity(sides: Sequence[Side], k: int, claimed: float, step: float = 1.0) -> str | None:
    """What result k shows instead of a derivative: words for a kink, a jump or an infinite slope.

    With falling steps the one-sided differences of a smooth function approach each other; at a kink they keep
    their distance, at a jump or where the slope is infinite they grow.

    Args:
        sides: see :class:`Differences`.
        k: which result.
        claimed: the derivative along the direction that something else gave.
        step: how far the direction moves the input.
    """
    claimed /= step
    coarse, fine = [  # the slopes below and above the point, for two steps well above round-off
        sorted([(-step, float(side.behind[k]) / step), (step, float(side.ahead[k]) / step)])
        for side in sides[:6][-2:]
    ]
    (_, left), (_, right) = fine
    (_, left_before), (_, right_before) = coarse
    finite = [abs(slope) < torch.inf for slope in (left, right)]
    if finite in ([True, False], [False, True]) and abs(claimed) < torch.inf:
        inside, before = (left, left_before) if finite[0] else (right, right_before)
        if abs(inside - claimed) <= 2 * abs(inside - before) + 1e-3 * abs(claimed):
            return f"the function ends here; its derivative on the one side is {inside:.4g}"
    if not all(finite):
        return "the function or its derivative is not finite here"
    steepest = max(abs(left), abs(right))
    if steepest > 1.5 * max(abs(left_before), abs(right_before), abs(claimed)):
        return "the function jumps here, or its slope is infinite"
    gap, gap_before = right - left, right_before - left_before
    between = min(left, right) - 0.05 * abs(gap) <= claimed <= max(left, right) + 0.05 * abs(gap)
    if 0.7 * abs(gap) < abs(gap_before) < 1.4 * abs(gap) and between:
        jump = f"from {left + 0.0:.4g} to {right + 0.0:.4g}"  # + 0.0 makes -0 a 0
        return f"the function has a kink here: its derivative jumps {jump}"
    return None
