"""What the CUDA engine launches, and what it keeps for that: by Triton's interpreter."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.cuda import bucket as cuda
from torchopt_course.engines.cuda import tables, work

from ..helpers import assert_same, ours, set_gradients, theirs

triton = pytest.importorskip("triton")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter takes the place of a GPU here"),
]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    monkeypatch.setattr(cuda.CudaBucket, "serves", lambda device: device == "cpu")


def pair(*dtypes: torch.dtype) -> list[list[Parameter]]:
    return [[Parameter(torch.ones(5, dtype=dtype)) for dtype in dtypes] for _ in range(2)]


def both_step(mine: Any, reference: Any, optimizer: Any, other: Any, count: int = 3) -> None:
    for step in range(count):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert optimizer.engine_report().startswith("fused CUDA engine")


def test_a_bucket_whose_host_counts_beside_one_whose_device_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when ``fused=True`` comes between the first gradients of two parameters."""
    monkeypatch.setattr(
        cuda, "_is_on_device", lambda each: isinstance(each, Tensor) and each.dtype == torch.float64
    )
    mine, reference = pair(torch.float32, torch.float64)
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    set_gradients(0, mine, reference)
    optimizer.step()
    other.step()
    optimizer.state[mine[1]]["step"] = optimizer.state[mine[1]]["step"].double()
    both_step(mine, reference, optimizer, other)
    assert [bucket.counts_on_device for bucket in optimizer._stepper.groups[0].buckets] == [False, True]
    assert [optimizer.state[param]["step"].item() for param in mine] == [4, 4]
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["Adam", "Adagrad", "RMSprop"])
def test_what_a_kernel_can_compute_of_the_step_torch_does_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything computed of steps where nothing depends on them, as in RMSprop."""
    monkeypatch.setattr(cuda, "_is_on_device", lambda value: isinstance(value, Tensor))
    monkeypatch.delattr(cuda.CudaBucket, "_passes")
    mine, reference = pair(torch.float64)
    optimizer = ours(name)(mine, lr=0.1, fused=True)
    other = theirs(name)(reference, lr=0.1, foreach=False)
    both_step(mine, reference, optimizer, other)
    assert optimizer.state[mine[0]]["step"] == 3
    torch.testing.assert_close(mine[0], reference[0], rtol=1e-10, atol=1e-12)


def test_what_several_streams_use_is_kept_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the first one: a table may have been copied on another meanwhile."""
    kept: list[int] = []
    stream = [7]
    monkeypatch.setattr(cuda, "current_stream", lambda device: stream[0])
    monkeypatch.setattr(cuda, "keep_for_stream", lambda launches: kept.append(stream[0]))
    mine, reference = pair(torch.float32)
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    for stream[0] in (7, 7, 8, 7):
        both_step(mine, reference, optimizer, other, count=1)
    assert kept == [8, 7]
    assert_same(mine, reference, optimizer, other)


def test_a_graph_that_needs_another_copy_to_the_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its replays would copy; the steps beside it would read what is not there."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"cannot be captured.*Before the capture take a step"):
        tables.upload(np.zeros(3, dtype=np.int64), torch.device("cuda"))


def test_the_work_of_a_graph_outlives_another_pattern_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunks_of_the_second(works: work.Works) -> Callable[[], Tensor | None]:
        absent = np.array([1, 0])
        guards: Any = SimpleNamespace(ages=np.ones(2), absent=absent, present=1, same_age=True)
        (of_one,) = works.by_age(guards)
        chunks = weakref.ref(of_one[1].chunks)
        guards.absent = 1 - absent
        assert works.by_age(guards)[0][1].rows.tolist() == [0]
        return chunks

    graphs: list[Tensor] = []
    monkeypatch.setattr(tables, "_read_by_graphs", graphs)
    works = work.Works(np.array([5, 6]), torch.device("cpu"))
    assert chunks_of_the_second(works)() is None
    monkeypatch.setattr(work, "is_captured", lambda device: True)
    kept = chunks_of_the_second(works)()
    assert kept is not None
    assert kept.tolist() == [[1, 0, 6]]
