"""What the tests share: the same parameters twice, the same gradients for both, and a fair comparison."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import torchopt_course
from torchopt_course.testing import assert_optimizer_agrees, optimizer_checks

ROOT = Path(__file__).parents[1]
NAMES = ["SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW"]
# The options that ask for an engine and for no other.
ENGINES = {"cpu": {"fused": True}, "foreach": {"foreach": True}, "eager": {"fused": False}}
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


def ours(name: str) -> Callable[..., torchopt_course.ElementwiseOptimizer]:
    return getattr(torchopt_course, name)


def theirs(name: str) -> Callable[..., torch.optim.Optimizer]:
    """Torch's class; its momentum is an option of SGD."""
    if name == "Momentum":
        return lambda params, lr=1e-3, momentum=0.9, **options: torch.optim.SGD(
            params, lr, momentum, **options
        )
    return getattr(torch.optim, name)


def tensor(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """A tensor of a kind that an engine might get wrong."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    return {
        "scalar": lambda: normal(),
        "empty": lambda: normal(0, 3),
        "vector": lambda: normal(7),
        "one": lambda: normal(1, 1),
        "matrix": lambda: normal(5, 3),
        "transposed": lambda: normal(3, 5).t(),
        "sliced": lambda: normal(4, 6)[:, ::2],
        "channels_last": lambda: normal(2, 3, 4, 5).to(memory_format=torch.channels_last),
        # Longer than one entry of the kernel's work list, and no multiple of anything.
        "large": lambda: normal(70_001),
    }[kind]()


KINDS = [
    "scalar",
    "empty",
    "vector",
    "one",
    "matrix",
    "transposed",
    "sliced",
    "channels_last",
    "large",
]
# The fused engine refuses memory with gaps; the other kinds are its business.
DENSE = [kind for kind in KINDS if kind != "sliced"]


def parameters(kinds: Sequence[str] = DENSE, dtype: torch.dtype = torch.float32) -> list[Parameter]:
    return [Parameter(tensor(kind, dtype, seed)) for seed, kind in enumerate(kinds)]


def set_gradients(step: int, *lists: Sequence[Tensor], scale: float = 1.0, expanded: bool = False) -> None:
    """Give parameters in the same place the same gradient, a new one for each step.

    Expanded gradients repeat their first row without storing it again, as those of a sum do.
    """
    for i, twins in enumerate(zip(*lists, strict=True)):
        generator = torch.Generator().manual_seed(1000 * step + i)
        param = twins[0]
        grad = scale * torch.randn(param.shape, generator=generator, dtype=torch.float64)
        grad = torch.complex(grad, grad.flip(0)) if param.is_complex() else grad
        for param in twins:
            value = grad.to(param)
            rows = expanded and value.dim() > 0 and value.shape[0] > 1
            param.grad = value[:1].expand(value.shape) if rows else value.clone()


class Largest:
    """The largest magnitude that each small tensor has had.

    Errors are relative to a tensor's largest element. A tensor of one element, or of a few with one and the
    same gradient, may just be passing through zero when it is looked at, and then its size says nothing.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], float] = {}

    def note(self, params: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
        for i, param in enumerate(params):
            for name, value in {"parameter": param, **optimizer.state.get(param, {})}.items():
                if 0 < value.numel() <= 16:
                    self._seen[i, name] = max(self._seen.get((i, name), 0.0), value.abs().max().item())

    def of(self, i: int, name: str, value: Tensor) -> float:
        return max(self._seen.get((i, name), 0.0), value.abs().max().item() if value.numel() else 0.0) or 1.0


def assert_same(
    mine: Sequence[Tensor],
    reference: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    other: torch.optim.Optimizer,
    tolerance: float | None = None,
    largest: Largest | None = None,
) -> None:
    """Parameters and states agree: names, dtypes, devices, shapes, values."""
    for i, (param, twin) in enumerate(zip(mine, reference, strict=True)):
        bound = TOLERANCE[twin.dtype] if tolerance is None else tolerance
        got = {"parameter": param.detach(), **optimizer.state.get(param, {})}
        expected = {"parameter": twin.detach(), **other.state.get(twin, {})}
        assert set(got) == set(expected), f"states of parameter {i}"
        for name, value in expected.items():
            for what in ("dtype", "shape", "device"):
                assert getattr(got[name], what) == getattr(value, what), f"{what} of {name} {i}"
            if value.numel():
                difference = (got[name] - value).abs().max().item()
                assert difference <= bound * (largest or Largest()).of(i, name, value), f"{name} {i}"


def some_of_the_kit(make: Any, reference: Any = None, **options: Any) -> None:
    for check in optimizer_checks(make, reference, **options):
        if check.name in ("reference", "descends", "checkpoint", "engines agree"):
            check()


# For the programs of pages, which ask the kit: all of it takes seconds.
some_or_all_of_the_kit = pytest.mark.parametrize(
    "kit", [some_of_the_kit, pytest.param(assert_optimizer_agrees, marks=pytest.mark.slow)]
)


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with the checkout on its path."""
    import os

    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def engines_used(optimizer: torchopt_course.ElementwiseOptimizer) -> dict[str, Any]:
    """How many parameters each engine took in the last step, and why the rest went to eager."""
    taken = [case for group in optimizer._stepper.groups for case in group.engines.values()]
    engines = [engine for engine, _ in taken]
    return {
        "cpu": engines.count("fused CPU engine"),
        "foreach": engines.count("foreach engine"),
        "eager": [reason for engine, reason in taken if engine == "eager engine"],
    }
