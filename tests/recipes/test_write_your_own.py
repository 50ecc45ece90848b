"""The script says whether its optimizers take the steps of torch's; zoo/test_zoo.py tries the steps, too."""

from __future__ import annotations

import sys

import pytest

from recipes import write_your_own


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
def test_the_script_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["write_your_own.py"])
    write_your_own.main()
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["Adadelta", "Adamax", "RAdam", "Rprop"]
    assert said[0] == "Adadelta takes the steps of torch.optim.Adadelta, on every engine here"
