"""Where numbers end: NaN, infinities, both zeros, ties, tiny and huge numbers; nothing, and one number.

Each operator once more, at such inputs: values, reverse mode (by kernels, and recorded by the written rules)
and forward mode must be torch's, NaN for NaN.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from torchopt_course import autograd as ag

from .cases import OPERATORS, SMOOTH_ONLY, Case, _case, _leaves, _samples, _some
from .verdict import TOLERANCE, Difference, _leaves_of, _like, _limited, _same

nan, inf = math.nan, math.inf
NUMBERS = (
    nan,
    inf,
    -inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-310,
    -1e-310,
    1e300,
    1e-300,
    0.5,
    2.0,
    -3.0,
    1e-8,
    710.0,
    -750.0,
)

# Of matrices of such numbers torch's own library gives no reproducible answer, or none.
MATRICES = tuple(name for name in SMOOTH_ONLY if name != "linalg") + tuple(
    f"linalg.{name}" for name in (
        "cholesky", "cond", "det", "eig", "householder", "inv", "ldl", "lstsq", "lu", "matrix_power",
        "matrix_rank", "multi_dot", "pinv", "qr", "slogdet", "solve", "svd", "tensor", "vander",
    )
)  # fmt: skip

DERIVATIVES = ("reverse", "recorded", "forward")

# What is not compared there, and why: the beginnings of what differs, by operator.
NAN_AT_THE_END = (
    "torch's vectorized and plain loops treat NaN differently: what it gives depends on the place"
)
OTHER_ORDER = "torch multiplies in another order, or rounds once where we round twice: one overflows"
DIFFERENT: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("nn.functional.hardtanh", "nn.functional.relu6"), (DERIVATIVES, NAN_AT_THE_END)
    ),
    **{f"nn.functional.{name}": (("recorded", "forward"), NAN_AT_THE_END) for name in (
        "elu", "celu", "selu", "hardshrink", "softshrink", "hardswish",
    )},
    **dict.fromkeys(
        ("__rdiv__", "addcdiv", "cross", "linalg.cross", "ldexp", "frexp", "index_reduce.prod"),
        (("output", *DERIVATIVES), OTHER_ORDER),
    ),
    **dict.fromkeys(
        ("std_mean", "std_mean.unbiased", "var_mean", "var_mean.unbiased", "native_group_norm"),
        (("output 1",), "the mean that comes with a variance is NaN for infinite numbers, torch.mean is not"),
    ),
    **dict.fromkeys(
        ("cdist", "nn.functional.pdist", "cumprod", "masked.cumprod", "logit", "_batch_norm_with_update",
         "nn.functional.instance_norm"),
        (("recorded",), "only torch's kernel, which runs when nothing is recorded, has this NaN"),
    ),
    **dict.fromkeys(
        [f"mvlgamma.mvlgamma_p_{p}" for p in (1, 3, 5)],
        (DERIVATIVES, "the pole at -0.0 has the sign of 0.0 in one of both"),
    ),
    "nn.functional.prelu": (("forward",), "torch's two modes take two sides of 0"),
    "scatter_reduce.prod": (("forward",), "torch's forward mode gives zero"),
    "logcumsumexp": (
        DERIVATIVES,
        "as long as all is -inf the slope is 0 here; torch's forward mode underflows",
    ),
    "nn.functional.linear_cross_entropy.chunked_none": (("forward",), "torch's forward mode gives zero"),
    "norm": (("forward",), "of an infinite norm: 0 or NaN"),
    "masked.prod": (("forward",), "a product of infinity and the others"),
    "prod": (
        DERIVATIVES,
        "two zeros make the gradient 0 in torch, unless it is recorded, also of NaN",
    ),
    "nanmean": (("reverse", "recorded"), "of nothing but NaN: 0 here"),
    "renorm": (DERIVATIVES, "rows whose norm is NaN are left alone by torch"),
    "nn.functional.binary_cross_entropy_with_logits": (
        DERIVATIVES, "of infinite targets",
    ),
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu": (
        ("output", *DERIVATIVES), "attention is computed as in the paper",
    ),
}  # fmt: skip


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


def cases_at_extremes(name: str, samples: int = 8) -> Iterator[tuple[str, Case]]:
    """A few samples of an operator, with other numbers; without elements; with one element."""
    op = OPERATORS[name]
    if name.startswith(MATRICES):
        return
    small = [
        sample
        for sample in _samples(op, torch.float64)
        if not any(isinstance(x, Tensor) and (x.is_complex() or x.numel() > 3000) for x in _leaves(sample))
    ]
    function = partial(op.gradcheck_wrapper, op.op)
    for index, sample in enumerate(_some(small, samples)):
        case = _case(op, "function", index, sample, function, False)
        if case.inputs:
            for what, inputs in _filled(case.inputs):
                yield what, replace(case, inputs=inputs)
        for what, cut in (("empty", _empty), ("one number", _single)):
            other = cut(sample)
            if other is not None and not (what == "empty" and name in UNDEFINED_OF_NOTHING):
                yield what, _case(op, "function", index, other, function, False)


def _filled(inputs: Sequence[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
    numbers, count = torch.tensor(NUMBERS, dtype=torch.float64), len(NUMBERS)

    def each(fill: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        return [fill(i, torch.arange(x.numel()).reshape(x.shape)) for i, x in enumerate(inputs)]

    def chance(i: int, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(i)
        return torch.randn(like.shape, dtype=torch.float64, generator=generator)

    yield "ties", each(lambda i, n: numbers[n % count])
    yield "pairs", each(lambda i, n: numbers[(n * (3 if i else 1) + 5 * i) % count])
    yield "other pairs", each(lambda i, n: numbers[(n * (5 if i else 1) + 7 * i) % count])
    for value in (0.0, 1.0, inf, -inf, nan):
        yield f"all {value}", each(lambda i, n, value=value: torch.full(n.shape, value, dtype=torch.float64))
    for value in (nan, inf):
        yield f"some {value}", each(lambda i, n, value=value: torch.where(n % 3 == 1, value, chance(i, n)))
    yield "small integers", each(lambda i, n: (2 * chance(i, n)).round().clamp(-1, 1))


def _empty(sample: Any) -> Any:
    """Without rows: what is as long as the input."""
    first = next((x for x in _leaves(sample) if isinstance(x, Tensor)), None)
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


# -- comparing -----------------------------------------------------------------------------------------------


def differences(name: str, samples: int = 8) -> list[str]:
    """All that is not torch's, but for what is known to differ; what is refused by name does not count."""
    known = DIFFERENT.get(name, ((), ""))[0]
    found = []
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        for what, case in cases_at_extremes(name, samples):
            with _limited():
                try:
                    notes = [*_compared(case)]
                except NotImplementedError:
                    continue
            found += [f"{case}, {what}: {note}" for note in notes if not note.startswith(known)]
    return found


def _compared(case: Case) -> Iterator[str]:
    def run(xs: Sequence[Any], ours: bool) -> list[Any]:
        torch.manual_seed(0)
        return _leaves_of(case.program(xs, ours))

    leaves = [x.detach().clone().requires_grad_() for x in case.inputs]
    try:
        outputs = run(leaves, False)
    except Exception:  # torch does not take such inputs
        return
    if not leaves or any(isinstance(y, Tensor) and y.layout != torch.strided for y in outputs):
        return
    variables = [ag.Variable(x.detach().clone()) for x in case.inputs]
    mine = run(variables, True)
    yield from _unequal("output", mine, outputs)
    if [getattr(y, "shape", ()) for y in mine] != [getattr(y, "shape", ()) for y in outputs]:
        return

    chosen = [
        i
        for i, y in enumerate(outputs)
        if isinstance(y, Tensor) and y.requires_grad and y.is_floating_point()
    ]
    ends = [outputs[i] for i in chosen]
    cotangents, directions = _like(ends, 1), _like(leaves, 2)
    try:
        expected = torch.autograd.grad(ends, leaves, cotangents, materialize_grads=True)
    except (RuntimeError, NotImplementedError):
        return
    for how, recorded in (("reverse", False), ("recorded", True)):
        if not any(isinstance(mine[i], ag.Variable) for i in chosen):
            gradients: Sequence[Any] = [torch.zeros_like(x) for x in expected]
        else:
            try:
                gradients = torch.autograd.grad(
                    [mine[i] for i in chosen], variables, cotangents, retain_graph=True,
                    create_graph=recorded, materialize_grads=True,
                )  # fmt: skip
            except NotImplementedError:
                if not recorded:
                    raise
                continue
        yield from _unequal(how, gradients, expected)

    def chosen_of(ours: bool) -> Callable[..., Any]:
        def f(*xs: Any) -> tuple[Any, ...]:
            outputs = run(xs, ours)
            return tuple(outputs[i] for i in chosen)

        return f

    inputs = tuple(x.detach() for x in case.inputs)
    truths = []  # torch has two forward modes, which do not always agree
    for jvp in (torch.func.jvp, torch.autograd.functional.jvp):
        try:
            truths.append(jvp(chosen_of(False), inputs, tuple(directions))[1])  # type: ignore[operator]
        except Exception:
            continue
    if truths:
        tangents = ag.jvp(chosen_of(True), inputs, tuple(directions))[1]
        for i, tangent in enumerate(tangents):
            same = [_close(tangent.detach(), truth[i]) for truth in truths]
            if not bool(torch.stack(same).any(0).all()):
                yield from _unequal("forward", tangents[i : i + 1], truths[0][i : i + 1])


def _close(mine: Tensor, theirs: Tensor) -> Tensor:
    tolerance = TOLERANCE[torch.float64]
    return torch.isclose(mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


def _unequal(what: str, mine: Sequence[Any], theirs: Sequence[Any]) -> Iterator[str]:
    if len(mine) != len(theirs):
        yield f"{what}: {len(mine)} results, torch {len(theirs)}"
        return
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        try:
            _same(a, b, f"{what} {i}", TOLERANCE[torch.float64])
        except Difference as difference:
            yield str(difference)


if __name__ == "__main__":  # all of them: python -m tests.autograd.judge.extremes
    for operator in sorted(OPERATORS):
        for difference in differences(operator):
            print(operator, difference, flush=True)
