"""Is an optimizer what its users will take it for: in the paper, in checkpoints, in groups, on every engine?

A check is a run of a few steps that must end like another one, compared step by step; ``checks/`` has them by
theme. They ask for nothing but ``torch.optim.Optimizer``'s public face, and so work on everybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from . import checks
from .catalogue import PROMISES, OptimizerCheck
from .trial import REFERENCE, SHAPES, TOLERANCE, Make, Trial
from .verdict import NotAsked, OptimizerError, short, together

__all__ = [
    "SHAPES",
    "TOLERANCE",
    "OptimizerCheck",
    "OptimizerError",
    "assert_optimizer_agrees",
    "checks",
    "optimizer_checks",
    "parametrize_with_checks",
]


def assert_optimizer_agrees(make: Make, reference: Make | None = None, **options: Any) -> None:
    """Check an optimizer, yours or anybody's, as the tests of this package check theirs::

        def test_lion():
            assert_optimizer_agrees(lambda params: Lion(params, lr=0.01), reference=lion_pytorch.Lion)

    It runs all of :func:`optimizer_checks`, which has the arguments, and reports all that fail.
    :func:`parametrize_with_checks` makes a pytest case of each instead.

    Raises:
        OptimizerError: an ``AssertionError`` that names the optimizer, precision, device and check, and says
            in which step and element two runs differ, both values, and how far they are apart: absolutely,
            relatively and in units in the last place. Exceptions in a check are its ``__cause__``.
        TypeError: ``make`` does not give a ``torch.optim.Optimizer``.
        ValueError: fewer than 4 steps, no shapes, or a ``reference_precision`` without a tolerance.
    """
    cases = list(optimizer_checks(make, reference, **options))
    failures = []
    for case in cases:
        try:
            case()
        except NotAsked:
            continue
        except OptimizerError as error:
            failures.append(error)
    if failures:
        raise together(cases[0].trial.name, len(cases), failures)


def optimizer_checks(
    make: Make,
    reference: Make | None = None,
    *,
    steps: int = 10,
    shapes: Sequence[Sequence[int]] | None = None,
    coupled: bool = False,
    fused: bool = True,
    tolerance: float | None = None,
    reference_precision: torch.dtype = torch.float64,
    seed: int = 0,
) -> Iterator[OptimizerCheck]:
    """The checks of an optimizer, each to be called, on the CPU and, if there is one, on the GPU.

    Most are made in float64; where rounding matters, in float32, bfloat16 and float16, too.

    Args:
        make: from a list of parameters, or of parameter groups, to your optimizer, such as its class. It is
            called often, and must give a new one each time.
        reference: from a list of parameters to an optimizer written by somebody else. In float64 both must
            take the same steps.
        steps: in each run, 4 or more.
        shapes: of the parameters, if not all will do: ``[(8, 8), (3, 5)]`` for an optimizer of matrices.
            They lie in memory one element after the other then; otherwise some are transposed,
            channels_last, or views with gaps.
        coupled: updates of one parameter depend on the others, as when clipping by the norm of all
            gradients. What takes independence for granted is left out.
        fused: of an :class:`~torchopt_course.ElementwiseOptimizer`: insist on the fused engine; ``False`` for
            rules that only torch can compute.
        tolerance: between two ways to compute the same, relative to the largest element of a tensor (default
            1e-10 in float64, 2e-5 in float32).
        reference_precision: ``torch.float32`` if the reference computes in that, if only some numbers, such
            as bias corrections; it may be off by 2e-5 then.
        seed: for parameters and gradients.

    Raises:
        TypeError, ValueError: as :func:`assert_optimizer_agrees`, which calls all of them.
    """
    if steps < 4:
        raise ValueError(f"steps must be at least 4, not {steps}")
    if shapes is not None and not len(shapes):
        raise ValueError("shapes must name at least one shape, such as [(8, 8)]")
    if reference_precision not in REFERENCE:
        known = " or ".join(map(str, REFERENCE))
        raise ValueError(f"reference_precision must be {known}, not {reference_precision}")
    trial = Trial(
        make=make,
        name="",
        steps=steps,
        seed=seed,
        tolerance=tolerance,
        shapes=None if shapes is None else tuple(tuple(shape) for shape in shapes),
        coupled=coupled,
        fused=fused,
        reference=reference,
        reference_precision=reference_precision,
    )
    trial = replace(trial, name=_name_of(trial))
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for promise in PROMISES:
            for dtype in promise.dtypes:
                yield OptimizerCheck(promise, replace(trial, device=torch.device(device), dtype=dtype))


def _name_of(trial: Trial) -> str:
    """Of the optimizer's class; of ``make``, if that raises: the checks will say so."""
    try:
        optimizer: object = trial.make(trial.parameters())
    except Exception:
        return str(getattr(trial.make, "__name__", trial.make))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"make() must give a torch.optim.Optimizer, not {type(optimizer).__name__}")
    return type(optimizer).__name__


def parametrize_with_checks(
    *makes: Make, reference: Make | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """One case of pytest for each check of each optimizer, with scikit-learn's name for it::

        @parametrize_with_checks(Lion, lambda params: Lion(params, weight_decay=0.1))
        def test_lion(check):
            check()

    Args:
        makes: of :func:`optimizer_checks`.
        reference: the same for all of them.
        options: of :func:`optimizer_checks`.
    """
    import pytest

    cases = [case for make in makes for case in optimizer_checks(make, reference, **options)]
    ids = [
        f"{case.trial.name}-{case.name.replace(' ', '_')}-{short(case.trial.dtype)}"
        + f"-{case.trial.device.type}" * (case.trial.device.type != "cpu")
        for case in cases
    ]
    return pytest.mark.parametrize("check", cases, ids=ids)
