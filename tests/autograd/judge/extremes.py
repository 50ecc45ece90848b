"""Where numbers end: NaN, infinities, both zeros, ties, tiny and huge numbers; nothing, and one number.

Each operator once more, at such inputs: values, reverse mode (by kernels, and recorded by the written rules)
and forward mode must be torch's, NaN for NaN. ``python -m tests.autograd.judge.extremes [names]`` prints what
differs; each operator has a process of its own, since torch itself ends it at some.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchopt_course import autograd as ag

from .cases import OPERATORS, Case
from .extreme_cases import cases_at_extremes
from .running import Ended, in_processes
from .verdict import TOLERANCE, Difference, _leaves_of, _like, _limited, _same

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


def differences(name: str, samples: int = 8) -> list[str]:
    """All that is not torch's, but for what is known to differ; what is refused by name does not count."""
    return [each for what, case in cases_at_extremes(name, samples) for each in _of_case(what, case)]


def _of_case(what: str, case: Case) -> list[str]:
    known = DIFFERENT.get(case.owner, ((), ""))[0]
    with _quietly():
        try:
            truth = _torch(case)
            notes = [] if truth is None else [*_compared(case, truth)]
        except NotImplementedError:
            return []
        except Exception as error:
            notes = [f"{type(error).__name__}: {str(error)[:200]}"]
    return [f"{case}, {what}: {note}" for note in notes if not note.startswith(known)]


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), _limited():
        warnings.simplefilter("ignore")
        yield


def _run(case: Case, xs: Sequence[Any], ours: bool) -> list[Any]:
    torch.manual_seed(0)
    return _leaves_of(case.program(xs, ours))


class Truth(NamedTuple):
    """What torch says: the outputs, which of them are differentiated, and along what, with what results."""

    outputs: list[Any]
    chosen: list[int]
    cotangents: list[Tensor]
    directions: list[Tensor]
    gradients: Sequence[Tensor] | None  # None: torch has no derivative
    tangents: list[tuple[Tensor, ...]]  # torch has two forward modes, which do not always agree


def _torch(case: Case) -> Truth | None:
    """``None`` where torch does not take such inputs, or nothing is differentiated."""
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs]
    try:
        outputs = _run(case, leaves, False)
    except Exception:
        return None
    if not leaves or any(isinstance(y, Tensor) and y.layout != torch.strided for y in outputs):
        return None
    chosen = [
        i
        for i, y in enumerate(outputs)
        if isinstance(y, Tensor) and y.requires_grad and y.is_floating_point()
    ]
    ends = [outputs[i] for i in chosen]
    truth = Truth(outputs, chosen, _like(ends, 1), _like(leaves, 2), None, [])
    try:
        gradients = torch.autograd.grad(ends, leaves, truth.cotangents, materialize_grads=True)
    except (RuntimeError, NotImplementedError):
        return truth
    for jvp in (torch.func.jvp, torch.autograd.functional.jvp):
        try:
            inputs = tuple(x.detach() for x in case.inputs)
            truth.tangents.append(jvp(_function(case, chosen, False), inputs, tuple(truth.directions))[1])  # type: ignore[operator]
        except Exception:
            continue
    return truth._replace(gradients=gradients)


def _function(case: Case, chosen: Sequence[int], ours: bool) -> Callable[..., tuple[Any, ...]]:
    def f(*xs: Any) -> tuple[Any, ...]:
        outputs = _run(case, xs, ours)
        return tuple(outputs[i] for i in chosen)

    return f


def _compared(case: Case, truth: Truth) -> Iterator[str]:
    variables = [ag.Variable(x.detach().clone()) for x in case.inputs]
    mine, chosen = _run(case, variables, True), truth.chosen
    yield from _unequal("output", mine, truth.outputs)
    if truth.gradients is None or [_shape(y) for y in mine] != [_shape(y) for y in truth.outputs]:
        return

    for how, recorded in (("reverse", False), ("recorded", True)):
        if not any(isinstance(mine[i], ag.Variable) for i in chosen):
            gradients: Sequence[Any] = [torch.zeros_like(x) for x in truth.gradients]
        else:
            try:
                gradients = torch.autograd.grad(
                    [mine[i] for i in chosen], variables, truth.cotangents, retain_graph=True,
                    create_graph=recorded, materialize_grads=True,
                )  # fmt: skip
            except NotImplementedError:
                if not recorded:
                    raise
                continue
        yield from _unequal(how, gradients, truth.gradients)

    if truth.tangents:
        inputs = tuple(x.detach() for x in case.inputs)
        tangents = ag.jvp(_function(case, chosen, True), inputs, tuple(truth.directions))[1]
        for i, tangent in enumerate(tangents):
            same = [_close(tangent.detach(), each[i]) for each in truth.tangents]
            if not bool(torch.stack(same).any(0).all()):
                yield from _unequal("forward", tangents[i : i + 1], truth.tangents[0][i : i + 1])


def _shape(value: Any) -> Sequence[int]:
    return getattr(value, "shape", ())


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


# -- all of them ---------------------------------------------------------------------------------------------


def sweep(names: Iterable[str], samples: int, processes: int) -> Iterator[str]:
    """What differs, operator by operator; where a process is ended, by which cases, and whose fault it is."""
    for name, found in in_processes(partial(differences, samples=samples), names, processes):
        if not isinstance(found, Ended):
            yield from found
            continue
        numbers = range(sum(1 for _ in cases_at_extremes(name, samples)))
        for number, notes in in_processes(partial(_one, name, samples), numbers, processes):
            if not isinstance(notes, Ended):
                yield from notes
                continue
            _, alone = next(in_processes(partial(_one, name, samples, by_torch_alone=True), [number]))
            whose = "by torch alone as well" if isinstance(alone, Ended) else "OURS, not by torch alone"
            yield f"{name} case {number}: {notes}, {whose}"


def _one(name: str, samples: int, number: int, by_torch_alone: bool = False) -> list[str]:
    torch.set_num_threads(1)
    what, case = next(islice(cases_at_extremes(name, samples), number, None))
    if not by_torch_alone:
        return _of_case(what, case)
    with _quietly():
        _torch(case)
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.autograd.judge.extremes")
    parser.add_argument("names", nargs="*", help="of operators, * for any letters (default: all)")
    parser.add_argument("--samples", type=int, default=8, help="of one operator")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads do not live on in a forked process
    asked = [op for op in sorted(OPERATORS) if any(fnmatch.fnmatchcase(op, p) for p in given.names or ["*"])]
    faults = 0
    for line in sweep(asked, given.samples, given.processes):
        print(line, flush=True)
        faults += not line.endswith("by torch alone as well")
    print(f"{len(asked)} operators, {faults} differences")
    sys.exit(faults > 0)
