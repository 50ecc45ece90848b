"""The seeded mistakes are mistakes, the right functions are right, and the kit tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gradient_checks
from benchmarks.checked_functions import Function, functions, hard_points
from benchmarks.gradient_checks import CHECKS, XP, raises, tensors
from benchmarks.seeded_mistakes import mistakes

MISTAKES = mistakes()
RIGHT = [*functions().values(), *hard_points()]


def derivatives(function: Function) -> tuple[list[Any], Any]:
    """VJP and JVP for fixed directions."""
    x = tensors(function)
    y = function.value(XP, *x)
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    t = tuple(torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a.dtype) for a in x)
    return list(function.vjp(XP, g, *x)), function.jvp(XP, t, *x)


def truth(function: Function) -> tuple[list[Any], Any]:
    """The same by torch, through the function's value."""
    x = [a.requires_grad_() for a in tensors(function)]
    y = function.value(XP, *x)
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    t = [torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a.dtype) for a in x]
    pulled = torch.autograd.grad(y, x, g, materialize_grads=True)
    _, pushed = torch.autograd.functional.jvp(
        lambda *a: function.value(XP, *a), tuple(a.detach() for a in x), tuple(t)
    )
    return list(pulled), pushed


def same(a: Any, b: Any, tolerance: float, least: float = 0.0) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance * max(least, float(b.abs().max()))))


@pytest.mark.parametrize("function", RIGHT, ids=lambda f: f.name)
def test_right_functions_are_right(function: Function):
    (mine, moved), (pulled, pushed) = derivatives(function), truth(function)
    tolerance = 1e-12 if pushed.dtype == torch.float64 else 1e-5
    assert all(same(a, b, tolerance, 1.0) for a, b in zip(mine, pulled, strict=True))
    assert same(moved, pushed, tolerance, 1.0)


def test_a_hundred_mistakes_are_mistakes():
    assert len(MISTAKES) >= 100
    for function in MISTAKES:
        if function.kind == "cut from the graph":  # right to first order
            continue
        (mine, moved), (pulled, pushed) = derivatives(function), truth(function)
        tolerance = 1e-9 if pushed.dtype == torch.float64 else 1e-4
        right = [same(a, b, tolerance) for a, b in zip(mine, pulled, strict=True)]
        wrong = same(moved, pushed, tolerance) if function.only == "jvp" else all(right)
        assert not wrong, (function.kind, function.name)


# A mistake of each kind, as the whole would take a minute; large inputs are in tests/autograd.
ONE_EACH = {f.kind: f for f in reversed(MISTAKES) if sum(x.size for x in f.inputs) < 100}


@pytest.mark.parametrize("kind", ONE_EACH)
def test_the_kit_finds_every_kind_though_torch_cannot_see(kind: str):
    assert raises(CHECKS["ours, torch cannot see"], ONE_EACH[kind])


@pytest.mark.parametrize("function", list(hard_points()), ids=lambda f: f.name)
def test_the_kit_accepts_right_functions_at_hard_points(function: Function):
    assert not raises(CHECKS["ours, torch cannot see"], function)


def test_the_command_counts_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    few = [f for f in MISTAKES if f.kind in ("off by 1e-6", "transposed") and f.name == "matmul"]
    monkeypatch.setattr(gradient_checks, "mistakes", lambda seed: few)
    monkeypatch.setattr(gradient_checks, "hard_points", lambda: [functions()["sin"]])
    monkeypatch.setattr(gradient_checks, "functions", lambda: {"cube": functions()["cube"]})
    monkeypatch.setattr(gradient_checks.importlib.util, "find_spec", lambda name: None)  # no JAX
    gradient_checks.main(["--verbose", "--out", str(tmp_path)])
    written = (tmp_path / "gradient_checks.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.splitlines() if "|" in line]
    assert ["off by 1e-6", "1", "1", "1", "0", ""] in rows
    assert ["transposed", "3", "3", "3", "3", ""] in rows
    assert [row for row in rows if row[0] == "all"] == [
        ["all", "4", "4", "4", "3", ""],
        ["all", "2", "0", "0", "0", ""],
    ]
    assert "off by 1e-6 (matmul), gradcheck: not found" in capsys.readouterr().out
