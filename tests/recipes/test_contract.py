"""What every recipe promises: its options, how it ends, what it leaves behind and says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm

from recipes import train
from recipes.common.command_line import parse
from recipes.common.report import Claim, Report, SeededClaim
from recipes.gallery import RECIPES, ROOT

from .conftest import SmokeRun, call_main, curves_of

# All but the one on one page, which has no options.
SCRIPTS = sorted({path.stem for path in (ROOT / "recipes").glob("*.py")} - {"__init__", "minimal"})
# In these two there is no chance, so no seed.
SEEDLESS = {"derivatives", "landscapes"}
every_recipe = pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[pytest.mark.slow] * (name == "landscapes")) for name in RECIPES]
)


@pytest.fixture
def ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call a recipe's command in an empty folder: its exit code, and what it says."""

    def call(recipe: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *words])
        with pytest.raises(SystemExit) as stop:
            call_main(recipe)
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err  # type: ignore[return-value]

    return call


def one_line(recipe: str, said: str) -> str:
    (line,) = said.splitlines()
    assert line.startswith(f"{recipe}.py: ")
    return line


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", SCRIPTS)
def test_help_names_every_option(recipe: str, ends: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = ends(recipe, "--help")
    assert (code, err) == (0, "")
    script = importlib.import_module(f"recipes.{recipe}")
    if recipe in RECIPES:
        options = Claim if recipe in SEEDLESS else SeededClaim
    else:
        options = getattr(script, "Options", None) or script.Config
    for field in dataclasses.fields(options):
        assert f"--{field.name.replace('_', '-')}" in out


@pytest.mark.parametrize("recipe", SCRIPTS)
def test_an_unknown_option_ends_with_one_line(
    recipe: str, tmp_path: Path, ends: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = ends(recipe, "--no-such-option")
    assert (code, out) == (2, "")
    assert "--no-such-option" in one_line(recipe, err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--size", "huge"], "'huge'"),
        (["--sizes", "smoke"], "perhaps you meant --size"),
        (["--seed", "one"], "--seed"),
        (["--seed", "-1"], "--seed must be from 0 to 2**62 - 1, not -1"),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_value_ends_with_one_line_before_anything_is_written(
    recipe: str, words: list[str], named: str, tmp_path: Path, ends: Callable[..., tuple[int, str, str]]
) -> None:
    if recipe in SEEDLESS and "--seed" in words:
        named = "--seed"
    code, out, err = ends(recipe, *words, "--logdir", "new")
    assert (code, out) == (2, "")
    assert named in one_line(recipe, err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "words", "said"),
    [
        ("range_test", ["--seed", "-1"], "--seed must be from 0"),
        ("five_optimizers", ["--seed", "-1"], "--seed must be from 0"),
    ],
)
def test_a_number_that_cannot_work_is_named(
    recipe: str, words: list[str], said: str, tmp_path: Path, ends: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = ends(recipe, *words)
    assert (code, out) == (2, "")
    assert said in one_line(recipe, err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--logdir", ""], ["--logdir="], ["--logdir", "", "--fresh"]])
def test_an_empty_value_is_refused(
    words: list[str], tmp_path: Path, ends: Callable[..., tuple[int, str, str]]
) -> None:
    """What comes of a variable of the shell that is not set; the current folder is not what was meant."""
    code, out, err = ends("train", *words)
    assert (code, out) == (2, "")
    assert "--logdir has an empty value" in one_line("train", err)
    assert not list(tmp_path.iterdir())


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py", "--logdir=~/a", "--data-dir=~/b"])
    config = parse(train.Config)
    assert (config.logdir, config.data_dir) == (tmp_path / "a", tmp_path / "b")


# -- how it ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_of_another_program_are_not_overwritten(
    recipe: str, tmp_path: Path, ends: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "config.json").write_text('{"theirs": 1}')
    code, out, err = ends(recipe, "--size", "smoke", "--logdir", ".")
    assert (code, out) == (2, "")
    assert "another program" in one_line(recipe, err)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"theirs": 1}']


@every_recipe
def test_ctrl_c_ends_with_one_line_and_without_a_result(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: Callable[..., tuple[int, str, str]],
) -> None:
    """Pressed when the first piece of work is done, or the first curve drawn."""

    def press(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm, "update", press)
    monkeypatch.setattr(Report, "curve", press)
    code, out, err = ends(recipe, "--size", "smoke", "--logdir", "run")
    assert (code, out) == (130, "")
    assert "interrupted" in one_line(recipe, err)
    assert not (tmp_path / "run" / "result.json").exists()
    EventAccumulator(str(tmp_path / "run")).Reload()  # what was logged so far can be read


# -- what it leaves behind -----------------------------------------------------------------------------------


def no_number(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


@every_recipe
def test_the_result_can_be_read_by_a_program_and_is_what_was_said(
    recipe: str, smoke: Callable[[str], SmokeRun]
) -> None:
    folder, out, err = smoke(recipe)
    result = json.loads((folder / "result.json").read_text(), parse_constant=no_number)
    assert result["recipe"] == recipe
    assert result["borne_out"] is None, "so small a run says nothing on the lecture"
    assert result["verdict"].endswith(f'says nothing about "{result["claim"]}".')
    assert result["evidence"]
    assert all(isinstance(row, dict) and row for row in result["rows"])
    assert result["seconds"] > 0
    assert result["torch_version"] == torch.__version__
    settings = json.loads((folder / "config.json").read_text())
    assert (settings["recipe"], settings["size"], settings["logdir"]) == (recipe, "smoke", str(folder))

    assert err == "", "no progress bar where nobody watches"
    assert out.startswith("\n".join(result["table"]) + "\n")
    assert result["verdict"] in out
    assert out.splitlines()[-1].endswith(f"--logdir {folder}")


@every_recipe
def test_pictures_show_something_and_are_in_tensorboard_with_the_curves(
    recipe: str, smoke: Callable[[str], SmokeRun]
) -> None:
    folder = smoke(recipe).folder
    pictures = smoke(recipe).result["pictures"]
    assert pictures
    for name in (name for name in pictures if not name.endswith(".svg")):
        with Image.open(folder / name) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 10
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = board.Tags()
    drawn = {f"{recipe}/{Path(name).stem}" for name in pictures if not name.endswith(".svg")}
    assert drawn <= set(tags["images"])
    curves = curves_of(folder)
    assert curves
    for tag, points in curves.items():
        steps = [point.step for point in points]
        assert steps == sorted(set(steps)), tag
