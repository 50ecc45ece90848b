"""Operators where numbers end: their samples with other numbers, with nothing, with one number."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .cases import OPERATORS, Case, _case, _samples, _some
from .layouts import CONTIGUOUS, LAYOUTS
from .left_out import SMOOTH_ONLY, TORCH_DIES, leaves_of

nan, inf = math.nan, math.inf


def numbers(dtype: torch.dtype) -> Tensor:
    """Where a dtype ends, and functions have kinks, bounds, poles and overflows: 23 of them, a prime."""
    info = torch.finfo(dtype)
    exponent = math.log(info.max)  # exp() of more is infinite
    ends = [info.smallest_normal / 4, info.smallest_normal, info.eps / 4, info.max, math.sqrt(info.max) * 3]
    return torch.tensor(
        [nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, ends[0], -ends[0], ends[3], ends[1], 0.5, 2.0, -3.0, ends[2],
         exponent + 0.5, -exponent - 40, -ends[3], ends[4], 3.0, 6.0, -0.5, 20.0],
        dtype=dtype,
    )  # fmt: skip


# Of matrices of such numbers torch's own library gives no reproducible answer, or none.
MATRICES = tuple(name for name in SMOOTH_ONLY if name != "linalg") + tuple(
    f"linalg.{name}" for name in (
        "cholesky", "cond", "det", "eig", "householder", "inv", "ldl", "lstsq", "lu", "matrix_power",
        "matrix_rank", "multi_dot", "pinv", "qr", "slogdet", "solve", "svd", "tensor", "vander",
    )
)  # fmt: skip

# Of no rows torch's kernel gives what happens to be in memory, dies, or takes the gradient of another row.
UNDEFINED_OF_NOTHING = {
    "nn.functional.multi_margin_loss",
    "nn.functional.multilabel_margin_loss",
    "nn.functional.linear_cross_entropy.chunked",
    "nn.functional.pdist",
    "_segment_reduce.lengths",
    "_segment_reduce.offsets",
    "block_diag",
}


# NaN and infinite coordinates become integers, which is undefined: torch reads wherever that may be.
UNDEFINED_OF_NUMBERS = {"grid_sampler_2d", "grid_sampler_3d", "nn.functional.grid_sample"}


# Of equal rows in one memory: which rank they have is rounding, median(dim) reads what nobody has written.
UNDEFINED_EXPANDED = {
    *("linalg.lstsq", "linalg.lstsq.grad_oriented", "linalg.solve_ex", "linalg.slogdet", "logdet"),
    *("linalg.svd", "svd"),
    *("median", "nanmedian", "masked.median"),
}


def cases_at_extremes(name: str, how: How) -> Iterator[tuple[str, Case]]:
    """A few samples of an operator, with other numbers; without elements; with one element.

    All kinds of numbers in contiguous float64, three of them in another dtype or layout.
    """
    op = OPERATORS[name]
    if how.dtype not in op.supported_backward_dtypes("cpu") or (name, how.dtype) in TORCH_DIES:
        return
    if how.layout == "expanded" and name in UNDEFINED_EXPANDED:
        return
    lay_out = LAYOUTS[how.layout]
    small = [
        sample
        for sample in _samples(op, how.dtype)
        if not any(
            isinstance(x, Tensor) and (x.is_complex() or x.layout is not torch.strided or x.numel() > 3000)
            for x in leaves_of(sample)
        )
    ]
    function = partial(op.gradcheck_wrapper, op.op)
    for index, sample in enumerate(_some(small, how.samples)):
        case = _case(op, "function", index, sample, function, False)
        inputs = [lay_out(x.detach()) for x in case.inputs]
        if how.layout != CONTIGUOUS:
            if all(mine.stride() == x.stride() for mine, x in zip(inputs, case.inputs, strict=True)):
                continue
            yield f"{how.layout}, the sample's own", replace(case, inputs=inputs)
        if name.startswith(MATRICES):
            continue
        if case.inputs and name not in UNDEFINED_OF_NUMBERS:
            for what, filled in _filled(case.inputs):
                if how == How(samples=how.samples) or what in ("ties", "pairs", "some nan"):
                    yield f"{how.layout}, {what}", replace(case, inputs=[lay_out(x) for x in filled])
        if how.layout != CONTIGUOUS:
            continue
        for what, cut in (("empty", _empty), ("one number", _single)):
            other = cut(sample)
            if other is not None and not (what == "empty" and name in UNDEFINED_OF_NOTHING):
                yield what, _case(op, "function", index, other, function, False)


class How(NamedTuple):
    """Of which numbers, how they lie in memory, and how many samples of an operator."""

    dtype: torch.dtype = torch.float64
    layout: str = CONTIGUOUS
    samples: int = 8


def _filled(inputs: Sequence[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
    ends = numbers(inputs[0].dtype)
    count = len(ends)

    def each(fill: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        return [fill(i, torch.arange(x.numel()).reshape(x.shape)).to(x.dtype) for i, x in enumerate(inputs)]

    def chance(i: int, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(i)
        return torch.randn(like.shape, dtype=torch.float64, generator=generator)

    yield "ties", each(lambda i, n: ends[n % count])
    yield "pairs", each(lambda i, n: ends[(n * (3 if i else 1) + 5 * i) % count])
    yield "other pairs", each(lambda i, n: ends[(n * (5 if i else 1) + 7 * i) % count])
    for value in (0.0, 1.0, inf, -inf, nan):
        yield f"all {value}", each(lambda i, n, value=value: torch.full(n.shape, value, dtype=torch.float64))
    for value in (nan, inf):
        yield f"some {value}", each(lambda i, n, value=value: torch.where(n % 3 == 1, value, chance(i, n)))
    yield "small integers", each(lambda i, n: (2 * chance(i, n)).round().clamp(-1, 1))


def _empty(sample: Any) -> Any:
    """Without rows: what is as long as the input."""
    first = next((x for x in leaves_of(sample) if isinstance(x, Tensor)), None)
    if first is None or not first.dim():
        return None
    return _changed(sample, lambda x: x[:0] if x.dim() and len(x) == len(first) else x)


def _single(sample: Any) -> Any:
    return _changed(sample, lambda x: x.reshape(-1)[0] if x.is_floating_point() and x.numel() else x)


def _changed(sample: Any, change: Callable[[Tensor], Tensor]) -> Any:
    def of_leaf(x: Any) -> Any:
        return change(x.detach()).clone().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x

    other = copy.copy(sample)
    other.input, other.args, other.kwargs = pytree.tree_map(
        of_leaf, (sample.input, sample.args, sample.kwargs)
    )
    return other
