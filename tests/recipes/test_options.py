"""Every recipe refuses options that cannot work with one line, before anything is written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from recipes.gallery import RECIPES

# In these two there is no chance, so no seed.
SEEDLESS = {"derivatives", "landscapes"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--size", "huge"], "'huge'"),
        (["--no-such-option"], "--no-such-option"),
        (["--sizes", "smoke"], "perhaps you meant --size"),
        (["--seed", "one"], "--seed"),
        (["--seed", "-1"], "--seed must be from 0 to 2**62 - 1, not -1"),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_bad_options_end_with_one_line(
    recipe: str,
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if recipe in SEEDLESS and "--seed" in words:
        named = "--seed"
    script = importlib.import_module(f"recipes.{recipe}")
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *words, "--logdir", str(tmp_path / "new")])
    with pytest.raises(SystemExit) as stop:
        script.main(script.Config, script.run)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"{recipe}.py: ")
    assert named in line
    assert not (tmp_path / "new").exists()
