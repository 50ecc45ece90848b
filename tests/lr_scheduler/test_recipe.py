"""The recipe that finds bounds and trains with them, and the page that shows its pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..helpers import ROOT


def test_recipe_draws_what_the_page_shows(tmp_path: Path) -> None:
    words = ["recipes/range_test.py", "--iterations", "200", "--epochs", "1", "--out", str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "base_lr=" in done.stdout
    assert "test accuracy" in done.stdout
    page = (ROOT / "docs" / "schedulers.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (tmp_path / "new").iterdir()}
    assert pictures == {"lr_range_test.png", "cyclic_lr.png"}
    for name in pictures:
        assert f"(images/{name})" in page
        assert 10_000 < (ROOT / "docs" / "images" / name).stat().st_size < 100_000
