"""On which engines tests run, and what they watch there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course.engines.cuda import bucket as cuda
from torchopt_course.engines.prepared import PreparedStep

from .reducing import ENGINES, interpret_cuda


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step was the one that had been prepared."""
    record: list[bool] = []
    take = PreparedStep.take

    def noted(self: PreparedStep, optimizer: Any) -> bool:
        record.append(take(self, optimizer))
        return record[-1]

    monkeypatch.setattr(PreparedStep, "take", noted)
    return record


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine; Triton's interpreter runs the kernels for CUDA."""
    name: str = request.param
    if name == "fused CUDA engine":
        interpret_cuda(monkeypatch)
    return name


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the CUDA engine works: a GPU, or the CPU with Triton's interpreter."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return "cuda"
    interpret_cuda(monkeypatch)
    return "cpu"


@pytest.fixture
def steps_on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter take every tensor for one that the host must not read."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(cuda, "_is_on_device", lambda value: isinstance(value, Tensor))
