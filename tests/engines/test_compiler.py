"""The compiled engine is a gift, never a condition: without it everything works, and never on stale code."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

import torchopt_course as oc
from torchopt_course.engines.native import compiler
from torchopt_course.engines.native import step as native

from ..helpers import run_python

TRAIN = """
import warnings, torch
{before}
import torchopt_course as oc
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    weights = torch.nn.Parameter(torch.ones(3)); other = torch.nn.Parameter(torch.ones(2))
    optimizers = [oc.Adam([weights], lr=0.1), oc.RMSprop([other], lr=0.1)]
    for step in range(3):
        for p in (weights, other):
            p.grad = torch.full_like(p, step + 1.0)
        for optimizer in optimizers:
            optimizer.step()
{after}
engine = "eager" if any(group.reasons for group in optimizers[0]._stepper.groups) else "cpu"
ours = [str(w.message) for w in caught if "torchopt" in str(w.message)]
print(engine, "|", *weights.tolist(), "|", *ours, sep="\\n")
"""


def train(before: str = "", after: str = "", **environment: str) -> tuple[str, list[float], list[str]]:
    """In a process of its own: the engine used, the weights, the warnings."""
    result = run_python(TRAIN.format(before=before, after=after), **environment)
    assert result.returncode == 0, result.stderr[-2000:]
    engine, weights, warnings = (part.strip().splitlines() for part in result.stdout.split("|\n"))
    return engine[0], [float(line) for line in weights], warnings


@pytest.fixture(scope="module")
def expected() -> list[float]:
    weights = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weights], lr=0.1)
    for step in range(3):
        weights.grad = torch.full_like(weights, step + 1.0)
        optimizer.step()
    return weights.tolist()


BROKEN_NUMBA = {
    "missing": ("import sys; sys.modules['numba'] = None", "numba is not installed"),
    "broken": ("import numba; numba.njit = None", "numba cannot compile"),
    "switched off": ("import os; os.environ['NUMBA_DISABLE_JIT'] = '1'", "numba cannot compile"),
}


@pytest.mark.parametrize(
    "how",
    # The others are found out when the first kernel is compiled, "missing" when numba is imported.
    ["missing", *(pytest.param(how, marks=pytest.mark.slow) for how in ("broken", "switched off"))],
)
def test_without_numba_everything_runs_on_eager(how: str, expected: list[float], tmp_path: Path) -> None:
    before, reason = BROKEN_NUMBA[how]
    insist = """
    try:
        oc.SGD([weights], fused=True).step()
    except RuntimeError as error:
        assert "fused=True" in str(error) and "numba" in str(error), error
    else:
        raise SystemExit("fused=True did not raise")
    """
    engine, weights, warnings = train(before, insist, NUMBA_CACHE_DIR=str(tmp_path))
    assert engine == "eager"
    assert weights == pytest.approx(expected, rel=1e-6)
    assert len(warnings) == 1, "one warning, not one for each optimizer"
    assert reason in warnings[0]
    assert "eager" in warnings[0]


@pytest.mark.slow
def test_cache_folder_that_cannot_be_written(expected: list[float], tmp_path: Path) -> None:
    """Kernels are compiled for this process alone, and the user is told that each process will."""
    (tmp_path / "file").write_text("not a folder")
    engine, weights, warnings = train(NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert engine == "cpu"
    assert weights == pytest.approx(expected, rel=1e-6)
    assert len(warnings) == 1
    assert "cannot be kept on disk" in warnings[0]


@pytest.mark.slow
def test_second_process_loads_what_the_first_compiled(expected: list[float], tmp_path: Path) -> None:
    """Without importing numba; and what was damaged meanwhile is noticed and compiled again."""
    no_numba = "import sys; assert 'numba' not in sys.modules"
    assert train(NUMBA_CACHE_DIR=str(tmp_path))[:2] == ("cpu", pytest.approx(expected, rel=1e-6))
    assert train(after=no_numba, NUMBA_CACHE_DIR=str(tmp_path))[0] == "cpu"

    truncated, flipped = sorted((tmp_path / "torchopt_course").glob("*.o"))  # two kernels
    truncated.write_bytes(truncated.read_bytes()[:-1])
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 1
    flipped.write_bytes(content)
    engine, weights, warnings = train(NUMBA_CACHE_DIR=str(tmp_path))
    assert (engine, warnings) == ("cpu", [])
    assert weights == pytest.approx(expected, rel=1e-6)
    assert train(after=no_numba, NUMBA_CACHE_DIR=str(tmp_path))[0] == "cpu", "and mended on disk"
    truncated.write_bytes(b"")
    assert train(NUMBA_CACHE_DIR=str(tmp_path))[::2] == ("cpu", [])


@pytest.mark.parametrize(
    ("shapes", "waits"),
    [
        ([(3,)], 56),  # what Python does for a step and a tensor is all that counts
        ([(70_000,)], 40),
        ([(64,)] * 1000, 1),
        ([(1000, 1000)] * 5, 2),
        ([(1000, 1000)] * 10, 1),
    ],
    ids=["tiny", "small", "many tensors", "five million elements", "ten million elements"],
)
def test_the_step_is_compiled_when_it_begins_to_pay(
    shapes: list[tuple[int, ...]], waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of compilation in a short run would be for nothing, and a large model must not wait."""
    is_compiled = []
    monkeypatch.setattr(native._Compiled, "call", None)
    monkeypatch.setattr(native._Compiled, "is_sought", True)
    monkeypatch.setattr(native._Compiled, "patience", native.PATIENCE)
    monkeypatch.setattr(native._Compiled, "is_tried", False)
    monkeypatch.setattr(native, "make_ready", lambda: is_compiled.append(True))
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = oc.SGD(weights)
    for each in weights:
        each.grad = torch.ones_like(each)
    for i in range(waits + 5):
        optimizer.step()
        assert len(is_compiled) == (i >= waits), f"step {i + 1}"


@pytest.mark.slow
def test_no_number_tells_when_the_step_was_compiled(tmp_path: Path) -> None:
    """The first process compiles it in the second step, the second finds it on disk."""
    program = """
import hashlib, torch, torchopt_course as oc
from torchopt_course.engines.native import step
torch.set_num_threads(2)
weights = [torch.nn.Parameter(torch.ones(size)) for size in (70_000, *[5] * 700)]
optimizer = oc.Adam(weights, lr=0.1)
ready = []
for i in range(4):
    for p in weights:
        p.grad = torch.linspace(-i, 7, len(p))
    optimizer.step()
    ready.append(step.is_ready())
print(*map(int, ready), hashlib.sha256(torch.cat(weights).detach().numpy().tobytes()).hexdigest())
"""
    runs = [run_python(program, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    first, second = (run.stdout.split() for run in runs)
    assert first[:4] == ["0", "1", "1", "1"], runs[0].stderr[-2000:]
    assert second[:4] == ["1"] * 4, runs[1].stderr[-2000:]
    assert first[4] == second[4]


CHANGING = """
import torch, torchopt_course as oc
FACTOR = {factor}
def scaled(g):
    return {helper}
class Changing(oc.ElementwiseOptimizer):
    @staticmethod
    def coefficients(lr):
        return dict(lr=lr)
    @staticmethod
    def rule(p, g, lr):
        return p - {constant} * scaled(g)
weights = torch.nn.Parameter(torch.zeros(2)); weights.grad = torch.ones(2)
Changing([weights], dict(lr=1.0, fused=True)).step()
print(weights[0].item())
"""


@pytest.mark.slow
def test_changed_rule_never_runs_stale_code(tmp_path: Path) -> None:
    """Its own code, a number in it, a function or a global number that it uses: each makes new code."""
    base = {"factor": "1.0", "helper": "FACTOR * g", "constant": "1.0"}
    changes: list[tuple[dict[str, str], float]] = [
        ({}, -1.0),
        ({"constant": "2.0"}, -2.0),
        ({"factor": "3.0"}, -3.0),
        ({"helper": "FACTOR * g + g"}, -2.0),
        ({}, -1.0),
    ]
    for change, result in changes:
        run = run_python(CHANGING.format(**{**base, **change}), NUMBA_CACHE_DIR=str(tmp_path))
        assert run.returncode == 0, run.stderr[-2000:]
        assert float(run.stdout) == result, change
    kernels = list((tmp_path / "torchopt_course").glob("*Changing*.o"))
    assert len(kernels) == 4, "the last program is the first again and finds its code"


def test_a_full_disk_keeps_no_halves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def nothing(word: int) -> None:
        pass

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "_warned", set())
    monkeypatch.setattr(compiler.os, "replace", full)
    with pytest.warns(RuntimeWarning, match="cannot be kept on disk, .* No space left"):
        assert compiler.native("nothing", "of a test", lambda: nothing, 1), "it runs all the same"
    assert list((tmp_path / "torchopt_course").iterdir()) == []


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiler.cache_folder() == tmp_path / "torchopt_course"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compiler.cache_folder() == tmp_path / "xdg" / "torchopt_course"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiler.cache_folder() == Path(os.path.expanduser("~")) / ".cache" / "torchopt_course"


def test_ctrl_c_is_not_taken_for_a_compiler_that_fails() -> None:
    """Python makes another error of what is raised while a class is made, and to import numba makes many."""

    class Pressed:
        def __set_name__(self, owner: type, name: str) -> NoReturn:
            raise KeyboardInterrupt

    def build() -> NoReturn:
        type("Imported", (), {"attribute": Pressed()})
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        compiler.native("pressed", "pressed", build, 1)
