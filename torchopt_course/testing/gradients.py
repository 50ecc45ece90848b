"""The gradient of one function, four ways, compared element by element.

==========  ================================================================
reverse     our reverse mode
forward     our forward mode
numerical   central differences (of the values, or of the next lower order)
torch       torch.autograd, if it sees through the function
==========  ================================================================

Three of them agreeing leaves little doubt about the fourth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .comparison import Comparison, Disagreement, Report, index
from .culprit import culprit, odd_ones
from .problem import Problem


class GradientError(AssertionError):
    """Two ways give different gradients; the message says which, where, by how much."""


class NotDifferentiable(UserWarning):
    """Something could not be compared, mostly for want of a derivative: a kink, a jump, an infinite slope."""


def assert_gradients_agree(
    f: Callable[..., Any] | nn.Module, *inputs: Any, order: int = 2, tolerance: float | None = None,
    numerical: bool = True, seed: int = 0,
) -> None:  # fmt: skip
    """Check that reverse mode, forward mode, finite differences and torch.autograd agree on f's derivatives.

    Order 1 checks the derivatives of f, order 2 those of its gradient ∇⟨u, f⟩ for a random u, and so on.

    - Reverse mode and torch.autograd are compared at every element. If f has an operation that torch cannot
      see into, torch is not asked.
    - Reverse and forward mode are compared along a random direction of all elements, for each input.
    - Forward mode and finite differences are compared along it for each element of the result. They are
      extrapolated and know their own error, so the check is as sharp as they are.
    - Inputs of less than double precision are checked as they are, and once more in float64 if f allows it.

    Every input has a scale of its own. Functions may draw random numbers: each evaluation starts from
    ``seed``. Functions and modules may change their arguments in place.

    Args:
        f: a function of tensors, written with torch's functions, that returns a tensor (or a tuple, list or
            dict of tensors); or a module, whose parameters are then checked as well. Buffers of a module are
            left as they are.
        inputs: its arguments. Floating-point tensors are differentiated, everything else is passed on.
        order: how many orders to check, 1 or more.
        tolerance: relative, for the exact ways (default 1e-9 in float64, 1e-4 in float32).
        numerical: compare with finite differences too.
        seed: for the directions and for random numbers in f.

    Raises:
        GradientError: an ``AssertionError``: two ways disagree. It says which, at which element, by how much,
            and which operation is to blame, if one is wrong on its own.
        ValueError: nothing to differentiate, or an order below 1.

    Warns:
        NotDifferentiable: f has a kink, a jump or an infinite slope at these inputs, and it is said where.
            There the exact ways must agree, and at a kink lie between the slopes on both sides. Also if
            differences do not converge, or torch alone is off (it rounds some constants to float32).
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has set
        remarks = _compared(f, inputs, order, tolerance, numerical, seed)
    if remarks:
        lines = [f"{place}: {words}" for place, words in remarks.items()]
        text = "\n  ".join(["not everything could be compared", *lines[:5], *["..."] * (len(lines) > 5)])
        warnings.warn(text, NotDifferentiable, stacklevel=2)


def _compared(
    f: Callable[..., Any] | nn.Module, inputs: Sequence[Any], order: int, tolerance: float | None,
    numerical: bool, seed: int,
) -> dict[str, str]:  # fmt: skip
    """Compare all orders; the places that could not be compared, and why."""
    problem = Problem(f, inputs, seed)
    if not problem.leaves:
        raise ValueError("nothing to differentiate: no floating-point tensor among the inputs")
    problems = [problem]
    if problem.coarsest != torch.float64 and (double := _in_double(f, inputs, seed)) is not None:
        problems.insert(0, double)
    remarks: dict[str, str] = {}
    for k in range(1, order + 1):
        # In low precision differences have few digits, so only the check in float64 uses them.
        compared = [
            Comparison(each, k, tolerance if each is problem else None, numerical and each is problems[0])
            for each in problems
        ]
        for comparison in compared:
            _check(comparison)
            remarks = comparison.remarks | remarks
        if len(compared) == 2:
            _survives_low_precision(compared[1], compared[0])
    return remarks


def _in_double(f: Callable[..., Any], inputs: Sequence[Any], seed: int) -> Problem | None:
    """The same in float64, or ``None`` if f does not allow it."""
    try:
        problem = Problem(f, inputs, seed, torch.float64)
        results = problem(*problem.leaves)
    except (RuntimeError, TypeError):
        return None
    return problem if all(y.dtype == torch.float64 for y in results) else None


def _survives_low_precision(low: Comparison, double: Comparison) -> None:
    """A gradient that is finite in float64, and fits, must be so in the dtype that it is computed in."""
    if not all(bool(y.isfinite().all()) for y in low.problem.values(low.k, low.problem.leaves)):
        return
    for i, (a, b) in enumerate(zip(low.reverse, double.reverse, strict=True)):
        bad = (~a.isfinite() & b.to(a.dtype).isfinite()).flatten().nonzero()
        if low.torch is None and bad.numel():
            element = int(bad[0])
            place = f"element {index(a, element)} of {low.problem.names[i]} {tuple(a.shape)}"
            raise GradientError(
                f"gradients of order {low.k}: {float(a.flatten()[element])} at {place} in "
                f"{str(a.dtype).removeprefix('torch.')}, but {float(b.flatten()[element]):.6g} in float64: "
                "the rule overflows where the function does not"
            )


def _check(comparison: Comparison) -> None:
    while (found := comparison.first_disagreement()) is not None:
        report = comparison.at(found.leaf, found.element)
        only_torch = odd_ones(report.values, report.margins) == ["torch"] and "numerical" in report.values
        if not only_torch or report.special:
            raise GradientError(_message(comparison, found, report))
        apart = abs(report.values["torch"] - report.values["numerical"])
        comparison.remark(
            found.leaf, found.element, f"torch.autograd is {apart:.1g} off here, all others agree"
        )
        comparison.torch = None


def _message(comparison: Comparison, found: Disagreement, report: Report) -> str:
    problem, i, element = comparison.problem, found.leaf, found.element
    values, margins, special = report
    wrong = odd_ones(values, margins)
    if wrong and len(wrong) < len(values):
        who = f"{', '.join(wrong)} {'disagrees' if len(wrong) == 1 else 'disagree'} with "
        who += ", ".join(name for name in values if name not in wrong)
    else:
        who = f"{found.pair[0]} disagrees with {found.pair[1]}"
    leaf = problem.leaves[i]
    place = "along a direction in" if element is None else f"at element {index(leaf, element)} of"
    place += f" {problem.names[i]} {tuple(leaf.shape)}"
    spread = max(values.values()) - min(values.values())
    lines = "\n".join(f"    {name:<10} {value:.12g}" for name, value in values.items())
    if special:
        blame = f"no operation is to blame: {special}; check at another point"
    else:
        blame = culprit(problem, comparison.k, comparison.numerical) or (
            "each operation on its own is right, so none could be singled out"
        )
    return f"gradients of order {comparison.k}: {who}\n  {place}, {spread:.3g} apart:\n{lines}\n  {blame}"
