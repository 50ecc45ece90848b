"""The gallery's page, and the one that is committed."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recipes import gallery
from recipes.common.errors import OptionError, UserError
from recipes.gallery import RECIPES, ROOT, Config, commands, page, results_in
from recipes.zoo.__main__ import Options

from .conftest import call_main

PAGE = ROOT / "docs" / "recipes.md"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of a recipe runs a program that leaves behind what a recipe does."""
    commands: list[list[str]] = []

    def pretend(words: list[Any], check: bool, env: dict[str, str]) -> None:
        assert check
        command = [str(word) for word in words]
        commands.append(command)
        folder = Path(command[command.index("--logdir") + 1])
        folder.mkdir(parents=True)
        name = Path(command[1]).stem
        (folder / "picture.png").write_bytes(name.encode())
        result = {
            "claim": f"the claim of {name}.",
            "borne_out": name != "plateau",
            "verdict": f"the verdict on {name}",
            "table": ["a  b", f"{name}  1"],
            "pictures": ["picture.png"],
            "torch_version": "9.9",
            "seconds": 50.2,
            **({"accuracy": 0.915, "epochs": 4} if name == "train" else {}),
        }
        (folder / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(gallery.subprocess, "run", pretend)
    return commands


def test_every_recipe_is_run_and_shown(asked: list[list[str]], tmp_path: Path) -> None:
    gallery.run(Config(size="smoke", logdir=tmp_path))
    assert [Path(command[1]).stem for command in asked] == [*RECIPES, "train"]
    for command in asked[:-1]:
        assert Path(command[1]).is_file()
        assert command[2:4] == ["--size", "smoke"]
        assert "--fresh" not in command  # finished ones are taken as they are
    written = (tmp_path / "recipes.md").read_text()
    for name in RECIPES:
        held = "**no**" if name == "plateau" else "yes"
        assert f"| [{name}](#{name}) | the claim of {name} | {held} | 50 s |" in written
        assert f"the verdict on {name}\n" in written
        assert f"```text\na  b\n{name}  1\n```" in written
        assert (tmp_path / "images" / "recipes" / name / "picture.png").read_bytes() == name.encode()
    assert "Test accuracy 91.5% after 4 epochs, 50 seconds" in written


def test_the_gallery_has_one_recipe_at_its_full_size_too(
    asked: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    gallery.run(Config(logdir=tmp_path / "runs"))
    sizes = {Path(command[-1]).name: (Path(command[1]).stem, command[3]) for command in asked[:-1]}
    assert sizes == {
        **{name: (name, "gallery") for name in RECIPES},
        "optimizers_full": ("optimizers", "full"),
    }
    written = (tmp_path / "docs" / "recipes.md").read_text()
    assert "| [optimizers_full](#optimizers_full) | the claim of optimizers | yes | 50 s |" in written
    assert "## optimizers_full\n\n`python recipes/optimizers.py --size full`\n" in written


def test_a_recipe_that_fails_ends_the_gallery_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[Any], check: bool, env: dict[str, str]) -> None:
        raise gallery.subprocess.CalledProcessError(2, words)

    monkeypatch.setattr(gallery.subprocess, "run", fail)
    with pytest.raises(UserError, match=f"{RECIPES[0]} has ended with exit code 2; the same command"):
        gallery.run(Config(size="smoke", logdir=tmp_path))


def test_the_recipes_are_all_there_is() -> None:
    scripts = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    others = {
        "__init__",
        "gallery",
        "train",
        "minimal",
        "five_optimizers",
        "choose_lr",
        "range_test",
        "write_your_own",
    }
    assert scripts - others == set(RECIPES)


def test_the_committed_page_is_what_the_command_makes_of_the_committed_outcomes() -> None:
    images = PAGE.parent / "images" / "recipes"
    results = results_in(images)
    assert PAGE.read_text(encoding="utf-8") == page("gallery", results)
    for name, result in results.items():
        shown = {"result.json", *result.get("pictures", [])}
        assert {path.name for path in (images / name).iterdir()} == shown


def test_the_committed_claims_are_those_of_the_recipes() -> None:
    for name, result in results_in(PAGE.parent / "images" / "recipes").items():
        script = Path(commands("gallery")[name].split()[0])
        recipe = importlib.import_module(f"recipes.{script.stem}")
        claim = getattr(recipe, "CLAIM", None)
        assert claim in (None, result.get("claim"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["derivatives", "landscapes", "adam_can_fail", "adaptive_steps"])
def test_the_committed_outcome_is_what_the_recipe_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in which nothing is trained on data: the same on every machine, within rounding."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--logdir", str(tmp_path)])
    call_main(name)
    images = PAGE.parent / "images" / "recipes" / name
    again, committed = (json.loads((path / "result.json").read_text()) for path in (tmp_path, images))
    assert again["borne_out"] == committed["borne_out"]
    assert_close(again["rows"], committed["rows"])
    for picture in committed["pictures"]:
        if picture.endswith(".svg"):
            assert (tmp_path / picture).read_text() == (images / picture).read_text()
            continue
        new, old = (np.asarray(Image.open(folder / picture).convert("RGB")) for folder in (tmp_path, images))
        assert new.shape == old.shape
        assert np.abs(new.astype(int) - old).mean() < 3, picture


def assert_close(mine: Any, theirs: Any) -> None:
    """Numbers within 2 %, all but those of the clock; everything else is equal."""
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys()
        for key in theirs:
            if "seconds" not in key:
                assert_close(mine[key], theirs[key])
    elif isinstance(theirs, list):
        for one, other in zip(mine, theirs, strict=True):
            assert_close(one, other)
    else:
        assert mine == (pytest.approx(theirs, rel=0.02, abs=1e-6) if isinstance(theirs, float) else theirs)


def test_the_zoo_refuses_a_page_that_cannot_be_written_before_it_measures(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no such folder" / "zoo.md"):
        with pytest.raises(OptionError, match="--page must be a file in a folder that can be written to"):
            Options(page=path).check()
