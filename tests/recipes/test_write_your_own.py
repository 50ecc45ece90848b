"""Optimizers written as a user would take torch's steps, and the script says so."""

from __future__ import annotations

import sys

import pytest

from recipes import write_your_own
from recipes.write_your_own import CLASSICS
from torchopt_course import ElementwiseOptimizer


@pytest.mark.parametrize("cls", CLASSICS)
def test_they_take_the_steps_of_torchs(cls: type[ElementwiseOptimizer]) -> None:
    write_your_own.check(cls)


def test_a_wrong_formula_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = write_your_own.Adamax.coefficients
    monkeypatch.setattr(
        write_your_own.Adamax,
        "coefficients",
        staticmethod(lambda step, lr, betas, eps: right(1, lr, betas, eps)),
    )
    monkeypatch.setattr(write_your_own, "CLASSICS", (write_your_own.Adamax,))
    monkeypatch.setattr(sys, "argv", ["write_your_own.py"])
    with pytest.raises(SystemExit) as stop:
        write_your_own.main()
    assert stop.value.code == 1
    message = "Adamax, float64 on cpu, reference: your optimizer and the reference differ"
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["write_your_own.py", "--elements", "100", "--rounds", "3"])
    write_your_own.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[0] for row in rows] == ["Adadelta", "Adamax", "RAdam", "Rprop"]
    for _, lines, same, *times in rows:
        assert same == "yes"
        assert 10 <= int(lines) <= 40
        assert all(float(number) >= 0 for number in times)


def test_options_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["write_your_own.py", "--rounds", "0"])
    with pytest.raises(SystemExit) as stop:
        write_your_own.main()
    assert stop.value.code == 2
    assert "--rounds must be at least 1, not 0" in capsys.readouterr().err
