"""The recipe that finds bounds and trains with them, and the page that shows its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..helpers import ROOT

range_test = pytest.importorskip("recipes.range_test", reason="needs the extra recipes")


def test_recipe_draws_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(range_test, "EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", ["range_test.py", "--out", str(tmp_path / "new")])
    range_test.main()
    said = capsys.readouterr().out
    assert "base_lr=" in said
    assert "test accuracy" in said
    page = (ROOT / "docs" / "schedulers.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "new").iterdir()}
    assert pictures == {"lr_range_test.png", "cyclic_lr.png"}
    for name in pictures:
        assert f"(images/{name})" in page
        assert 10_000 < (ROOT / "docs" / "images" / name).stat().st_size < 100_000
