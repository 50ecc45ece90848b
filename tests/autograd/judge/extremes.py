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
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchopt_course import autograd as ag

from .cases import OPERATORS, Case
from .extreme_cases import How, cases_at_extremes
from .known_differences import DIFFERENT, OF_16_BITS
from .layouts import CONTIGUOUS, LAYOUTS
from .running import Ended, in_processes
from .verdict import TOLERANCE, Difference, _leaves_of, _like, _limited, _same


def differences(name: str, how: How) -> list[str]:
    """All that is not torch's, but for what is known to differ; what is refused by name does not count."""
    return [each for what, case in cases_at_extremes(name, how) for each in _of_case(what, case)]


def _of_case(what: str, case: Case) -> list[str]:
    known = DIFFERENT.get(case.owner, ((), ""))[0]
    if case.inputs and case.inputs[0].dtype in (torch.float16, torch.bfloat16):
        known += OF_16_BITS.get(case.owner, ((), ""))[0]
    notes: list[str] = []
    versions = [x._version for x in case.inputs]
    with _quietly():
        try:
            truth = _torch(case)
            for note in () if truth is None else _compared(case, truth):
                notes.append(note)  # one by one: a refusal may come behind it
        except NotImplementedError:
            pass
        except Exception as error:
            notes.append(f"{type(error).__name__}: {str(error)[:200]}")
    if versions != [x._version for x in case.inputs]:
        notes.append("an argument was written to")
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


def _torch(case: Case, along: Truth | None = None) -> Truth | None:
    """``None`` where torch does not take such inputs, or nothing is differentiated.

    ``along``: take the cotangents and directions of another one.
    """
    leaves = [x.detach().requires_grad_() for x in case.inputs]
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
    if along is None:
        cotangents, directions = _like(ends, 1), _like(leaves, 2)
    else:
        cotangents = [c.to(y.dtype) for c, y in zip(along.cotangents, ends, strict=True)]
        directions = [t.to(x.dtype) for t, x in zip(along.directions, leaves, strict=True)]
    truth = Truth(outputs, chosen, cotangents, directions, None, [])
    try:
        gradients = torch.autograd.grad(ends, leaves, truth.cotangents, materialize_grads=True)
    except (RuntimeError, NotImplementedError):
        return truth
    for jvp in (torch.func.jvp, torch.autograd.functional.jvp):
        try:
            inputs = tuple(x.detach().clone() for x in case.inputs)  # torch.func takes no expanded ones
            truth.tangents.append(jvp(_function(case, chosen, False), inputs, tuple(truth.directions))[1])  # type: ignore[operator]
        except Exception:
            continue
    return truth._replace(gradients=gradients)


def _exact(case: Case, truth: Truth) -> Truth | None:
    """The same by torch in float64, where it can: in fewer bits torch may overflow on the way, and we not."""
    if all(x.dtype == torch.float64 for x in case.inputs):
        return None
    try:
        return _torch(replace(case, inputs=[x.double() for x in case.inputs]), along=truth)
    except Exception:
        return None


def _function(case: Case, chosen: Sequence[int], ours: bool) -> Callable[..., tuple[Any, ...]]:
    def f(*xs: Any) -> tuple[Any, ...]:
        outputs = _run(case, xs, ours)
        return tuple(outputs[i] for i in chosen)

    return f


def _compared(case: Case, truth: Truth) -> Iterator[str]:
    variables = [ag.Variable(x) for x in case.inputs]
    mine, chosen = _run(case, variables, True), truth.chosen
    yield from _unequal("output", mine, truth.outputs)
    if truth.gradients is None or [_shape(y) for y in mine] != [_shape(y) for y in truth.outputs]:
        return

    # Where ours is a constant it has no gradient, and torch's must be zero.
    pairs = [
        (mine[i], g)
        for i, g in zip(chosen, truth.cotangents, strict=True)
        if isinstance(mine[i], ag.Variable)
    ]
    exact = _exact(case, truth)
    for how, recorded in (("reverse", False), ("recorded", True)):
        if not pairs:
            gradients: Sequence[Any] = [torch.zeros_like(x) for x in truth.gradients]
        else:
            try:
                gradients = torch.autograd.grad(
                    [y for y, _ in pairs], variables, [g for _, g in pairs], retain_graph=True,
                    create_graph=recorded, materialize_grads=True,
                )  # fmt: skip
            except NotImplementedError:
                if not recorded:
                    raise
                continue
        yield from _unequal(how, gradients, truth.gradients, None if exact is None else exact.gradients)

    if truth.tangents:
        inputs = tuple(x.detach() for x in case.inputs)
        tangents = ag.jvp(_function(case, chosen, True), inputs, tuple(truth.directions))[1]
        for i, tangent in enumerate(tangents):
            others = [] if exact is None else exact.tangents
            same = [_close(tangent.detach(), each[i]) for each in (*truth.tangents, *others)]
            if not bool(torch.stack(same).any(0).all()):
                yield from _unequal("forward", tangents[i : i + 1], truth.tangents[0][i : i + 1])


def _shape(value: Any) -> Sequence[int]:
    return getattr(value, "shape", ())


def _close(mine: Tensor, theirs: Tensor) -> Tensor:
    tolerance = TOLERANCE[mine.dtype]
    return torch.isclose(mine, theirs.to(mine.dtype), rtol=tolerance, atol=tolerance, equal_nan=True)


def _unequal(
    what: str, mine: Sequence[Any], theirs: Sequence[Any], exact: Sequence[Tensor] | None = None
) -> Iterator[str]:
    if len(mine) != len(theirs):
        yield f"{what}: {len(mine)} results, torch {len(theirs)}"
        return
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if exact is not None and a.dtype == b.dtype and a.shape == b.shape:
            a = torch.where(_close(a.detach(), exact[i].detach()), b, a)
        try:
            _same(a, b, f"{what} {i}", TOLERANCE.get(getattr(b, "dtype", None), 0.0), by_element=True)
        except Difference as difference:
            yield str(difference)
            continue
        if what == "output" and isinstance(b, Tensor) and b.is_floating_point():
            a, b = a.detach(), b.detach()
            zeros = (a == 0) & (b == 0) & (a.signbit() != b.signbit())
            if bool(zeros.any()):
                yield f"sign of {what} {i}: {int(zeros.sum())} zeros of {b.numel()}"


# -- all of them ---------------------------------------------------------------------------------------------


def sweep(names: Iterable[str], how: How, processes: int) -> Iterator[str]:
    """What differs, operator by operator; where a process is ended, by which cases, and whose fault it is."""
    for name, found in in_processes(partial(differences, how=how), names, processes):
        if not isinstance(found, Ended):
            yield from found
            continue
        numbers = range(sum(1 for _ in cases_at_extremes(name, how)))
        for number, notes in in_processes(partial(_one, name, how), numbers, processes):
            if not isinstance(notes, Ended):
                yield from notes
                continue
            _, alone = next(in_processes(partial(_one, name, how, by_torch_alone=True), [number]))
            whose = "by torch alone as well" if isinstance(alone, Ended) else "OURS, not by torch alone"
            yield f"{name} case {number}: {notes}, {whose}"


def _one(name: str, how: How, number: int, by_torch_alone: bool = False) -> list[str]:
    torch.set_num_threads(1)
    what, case = next(islice(cases_at_extremes(name, how), number, None))
    if not by_torch_alone:
        return _of_case(what, case)
    with _quietly():
        _torch(case)
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.autograd.judge.extremes")
    parser.add_argument("names", nargs="*", help="of operators, * for any letters (default: all)")
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32", "float16", "bfloat16"])
    parser.add_argument("--layout", default=CONTIGUOUS, choices=LAYOUTS)
    parser.add_argument("--samples", type=int, default=8, help="of one operator")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads do not live on in a forked process
    asked = [op for op in sorted(OPERATORS) if any(fnmatch.fnmatchcase(op, p) for p in given.names or ["*"])]
    how = How(getattr(torch, given.dtype), given.layout, given.samples)
    faults = 0
    for line in sweep(asked, how, given.processes):
        print(line, flush=True)
        faults += not line.endswith("by torch alone as well")
    print(f"{len(asked)} operators, {faults} differences")
    sys.exit(faults > 0)
