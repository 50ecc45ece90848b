"""How a case is judged: values, then derivatives of both orders in all modes, against torch's."""

from __future__ import annotations

import contextlib
import signal
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchopt_course import autograd as ag

from .cases import Case

EQUAL, REFUSED, WRONG, CRASH, SKIPPED = "equal", "refused", "WRONG", "CRASH", "torch refuses"
TOLERANCE = {torch.float64: 1e-7, torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 4e-2}
SECONDS = 30  # of processor time for one case, which mostly takes milliseconds


@dataclass(frozen=True)
class Verdict:
    kind: str
    note: str = ""


@dataclass
class Truth:
    """What torch says: the outputs, which of them are differentiated, with what cotangents, the results."""

    outputs: list[Any]
    differentiable: list[int]
    cotangents: list[Tensor]
    directions: list[Tensor]
    first: list[Tensor] | None = None
    second: list[Tensor] | None = None


class Difference(AssertionError):
    pass


def judge(case: Case) -> Verdict:
    """Equal to torch, refused by name, wrong, or crashed."""
    # torch has no second derivative of the fused attention.
    with warnings.catch_warnings(), _limited(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        try:
            truth = _torch(case)
        except Exception as error:
            return Verdict(SKIPPED, f"{type(error).__name__}: {error}")
        try:
            _compare(case, truth)
        except Difference as difference:
            return Verdict(WRONG, str(difference))
        except NotImplementedError as refusal:
            return Verdict(REFUSED, str(refusal).split("\n")[0])
        except Exception as error:
            frames = [
                f
                for f in traceback.extract_tb(error.__traceback__)
                if "tests/autograd/judge" not in f.filename
            ]
            where = f" ({frames[-1].filename.rsplit('/', 2)[-1]}:{frames[-1].lineno})" if frames else ""
            return Verdict(CRASH, f"{type(error).__name__}: {str(error)[:300]}{where}")
    return Verdict(EQUAL)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f"a case took more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# -- torch ---------------------------------------------------------------------------------------------------


def _leaves_of(output: Any) -> list[Any]:
    if isinstance(output, tuple | list):
        return [leaf for each in output for leaf in _leaves_of(each)]
    if isinstance(output, dict):
        return [leaf for each in output.values() for leaf in _leaves_of(each)]
    return [output]


def _like(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype) for x in tensors
    ]


def _torch(case: Case) -> Truth:
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs]
    torch.manual_seed(0)
    outputs = _leaves_of(case.program(leaves, False))
    chosen = [
        i
        for i, y in enumerate(outputs)
        if isinstance(y, Tensor) and y.requires_grad and y.is_floating_point()
    ]
    ends = [outputs[i] for i in chosen]
    if any(isinstance(y, Tensor) and y.layout != torch.strided for y in outputs):
        raise NotImplementedError("sparse")
    # Infinite outputs say nothing: 0 times them is no number.
    cotangents = [
        torch.where(y.detach().isfinite(), c, 0.0) for y, c in zip(ends, _like(ends, 1), strict=True)
    ]
    truth = Truth(outputs, chosen, cotangents, _like(leaves, 2))
    if not any(bool(c.any()) for c in cotangents):
        return truth
    try:
        first = torch.autograd.grad(
            ends, leaves, truth.cotangents, create_graph=case.orders > 1, materialize_grads=True
        )
        truth.first = list(first)
        if case.orders > 1:
            ways = [(g, v) for g, v in zip(first, truth.directions, strict=True) if g.requires_grad]
            second = [torch.zeros_like(x) for x in leaves]
            if ways:
                scalar = sum((g * v).sum() for g, v in ways)
                second = list(torch.autograd.grad(scalar, leaves, materialize_grads=True))
            truth.second = second
    except (RuntimeError, NotImplementedError):
        pass  # torch has no derivative: the values are compared
    return truth


# -- ours ----------------------------------------------------------------------------------------------------


def _compare(case: Case, truth: Truth) -> None:
    inputs = [x.detach().clone() for x in case.inputs]
    variables = [ag.Variable(x) for x in inputs]
    torch.manual_seed(0)
    outputs = _leaves_of(case.program(variables, True))
    if len(outputs) != len(truth.outputs):
        raise Difference(f"{len(outputs)} outputs, torch {len(truth.outputs)}")
    tensors = [x for x in (*inputs, *case.beside, *truth.outputs) if isinstance(x, Tensor)]
    tolerance = max(TOLERANCE.get(x.dtype, 0.0) for x in tensors) if tensors else 0.0
    same = partial(_same, tolerance=tolerance)
    for i, (mine, theirs) in enumerate(zip(outputs, truth.outputs, strict=True)):
        same(mine, theirs, f"output {i}")

    if truth.first is None:
        return
    ends = [(outputs[i], c) for i, c in zip(truth.differentiable, truth.cotangents, strict=True)]
    total = _dot([y for y, _ in ends], [c for _, c in ends])
    if isinstance(total, ag.Variable):
        total.backward()
    for i, (v, theirs) in enumerate(zip(variables, truth.first, strict=True)):
        same(torch.zeros_like(theirs) if v.grad is None else v.grad, theirs, f"reverse, argument {i}")

    def scalar(*xs: Any) -> Any:
        torch.manual_seed(0)
        outputs = _leaves_of(case.program(xs, True))
        return _dot([outputs[i] for i in truth.differentiable], truth.cotangents)

    if not inputs:
        return
    # The tangent of the scalar is its gradient times the direction.
    terms = torch.stack(
        [(g.double() * v.double()).sum() for g, v in zip(truth.first, truth.directions, strict=True)]
    )
    if bool(terms.isfinite().all()):
        _, tangent = ag.jvp(scalar, tuple(inputs), tuple(truth.directions))
        size = sum((g * v).abs().sum() for g, v in zip(truth.first, truth.directions, strict=True))
        try:
            same(tangent.detach().double(), terms.sum(), "forward", scale=max(float(size), 1.0))
        except Difference:  # where torch's two modes differ, its forward mode is the truth for ours
            theirs = _torch_forward(case, truth)
            if theirs is None:
                raise
            same(tangent.detach().double(), theirs.double(), "forward", scale=max(float(size), 1.0))

    if truth.second is None or not all(bool(theirs.isfinite().all()) for theirs in truth.first):
        return  # of an infinite gradient nothing more can be compared
    everything = tuple(range(len(inputs)))
    gradient = ag.grad(scalar, argnums=everything)
    _, mixed = ag.jvp(gradient, tuple(inputs), tuple(truth.directions))
    again = ag.grad(lambda *xs: _dot(gradient(*xs), truth.directions), argnums=everything)(*inputs)
    for i, theirs in enumerate(truth.second):
        if bool(theirs.isnan().any()):  # torch's own second derivative is none
            continue
        same(again[i], theirs, f"reverse over reverse, argument {i}")
        same(mixed[i], theirs, f"forward over reverse, argument {i}")


def _torch_forward(case: Case, truth: Truth) -> Tensor | None:
    def scalar(*xs: Any) -> Any:
        torch.manual_seed(0)
        outputs = _leaves_of(case.program(xs, False))
        return _dot([outputs[i] for i in truth.differentiable], truth.cotangents)

    try:
        given = [x.detach() for x in case.inputs]
        return torch.func.jvp(scalar, tuple(given), tuple(truth.directions))[1]
    except Exception:  # torch has no forward mode there
        return None


def _dot(xs: Sequence[Any], ys: Sequence[Any]) -> Any:
    terms = [
        ((x if bool(x.detach().isfinite().all()) else torch.where(x.detach().isfinite(), x, 0.0)) * y).sum()
        for x, y in zip(xs, ys, strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _same(
    mine: Any, theirs: Any, what: str, tolerance: float, scale: float = 1.0, by_element: bool = False
) -> None:
    if not isinstance(theirs, Tensor):
        if isinstance(mine, Tensor) or (mine != theirs and mine == mine):
            raise Difference(f"{what}: {mine!r}, torch {theirs!r}")
        return
    if not isinstance(mine, Tensor):
        raise Difference(f"{what}: {mine!r}, torch a tensor")
    mine, theirs = mine.detach(), theirs.detach()
    if mine.shape != theirs.shape:
        raise Difference(f"{what}: shape {tuple(mine.shape)}, torch {tuple(theirs.shape)}")
    if mine.dtype != theirs.dtype:
        raise Difference(f"{what}: {mine.dtype}, torch {theirs.dtype}")
    if tolerance > TOLERANCE[torch.float64] and theirs.numel() and not by_element:
        finite = theirs[theirs.isfinite()].abs()
        scale = max(scale, float(finite.max()) if finite.numel() else 1.0)
    off = ~torch.isclose(mine, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if bool(off.any()):
        place = tuple(int(i) for i in off.nonzero()[0])
        raise Difference(
            f"{what}: {mine[place].item()}, torch {theirs[place].item()} at {place}, {int(off.sum())} of "
            f"{off.numel()} differ"
        )
