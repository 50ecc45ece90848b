"""Run every recipe, and rebuild the page that shows them: `python recipes/gallery.py`, or `make gallery`."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from recipes.common.command_line import parse, plain_endings
from recipes.common.errors import UserError
from recipes.common.folder import read_json, write_whole

ROOT = Path(__file__).resolve().parents[1]

# In the order of the lecture.
RECIPES = (
    *("derivatives", "batch_size", "learning_rates", "loss_plane", "landscapes", "plateau", "cyclic"),
    *("sparse_features", "adaptive_steps", "adam_can_fail", "optimizers"),
    *("low_precision", "low_precision_text"),
)
ONE_CYCLE = (
    "--data fashion-mnist --model cnn --optimizer momentum --lr 0.005 --max-lr 0.1 "
    "--scheduler cyclic --cycle-epochs {0} --epochs {0} --batch-size 128"
)
TRAIN = {"smoke": "--epochs 2", "gallery": ONE_CYCLE.format(4), "full": ONE_CYCLE.format(8)}


@dataclass(frozen=True)
class Config:
    """Run every recipe, and write a page with the pictures, tables and verdicts of these runs.

    The page is docs/recipes.md for the size gallery, and lies in --logdir for the others.
    """

    size: Literal["smoke", "gallery", "full"] = "gallery"
    """smoke: a minute or two in all; gallery: two hours on two slow cores; full: many."""
    logdir: Path = Path("runs/gallery")
    """Folder for the runs, one below it for each recipe; all of them in one TensorBoard."""
    fresh: bool = False
    """Compute all anew. Without it finished recipes are taken as they are, and interrupted ones go on."""


def commands(size: str) -> dict[str, str]:
    """What is run, each in a folder of that name."""
    asked = {name: f"recipes/{name}.py --size {size}" for name in RECIPES}
    if size == "gallery":  # "with time" takes time
        asked["optimizers_full"] = "recipes/optimizers.py --size full"
    return {**asked, "train": f"recipes/train.py {TRAIN[size]}"}


def run(config: Config) -> None:
    """Every recipe as a user would call it, one after the other, then the page."""
    for name, command in commands(config.size).items():
        print(f"\n== {name}", flush=True)
        (script, *options), folder = command.split(), config.logdir / name
        if config.fresh:
            options.append("--fresh")
        try:
            words = [sys.executable, str(ROOT / script), *options, "--logdir", str(folder)]
            subprocess.run(words, check=True, env={**os.environ, "RECIPES_GALLERY": str(os.getpid())})
        except subprocess.CalledProcessError as error:
            again = "the same command (without --fresh) goes on from there"
            raise UserError(f"{name} has ended with exit code {error.returncode}; {again}") from error
    docs = ROOT / "docs" if config.size == "gallery" else config.logdir
    images = docs / "images" / "recipes"
    for name in commands(config.size):
        keep(config.logdir / name, images / name)
    write_whole(docs / "recipes.md", page(config.size, results_in(images)).encode())
    print(f"\nwrote {docs / 'recipes.md'}")


def keep(folder: Path, images: Path) -> None:
    """The outcome and its pictures go beside the page, which is made from them and can be checked so."""
    images.mkdir(parents=True, exist_ok=True)
    for old in (read_json(images / "result.json") or {}).get("pictures", []):  # what others put there stays
        (images / old).unlink(missing_ok=True)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for name in ("result.json", *result.get("pictures", [])):
        shutil.copy(folder / name, images / name)


def results_in(images: Path) -> dict[str, dict[str, Any]]:
    """The outcomes that the page was made from."""
    outcomes = images.glob("*/result.json")
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in outcomes}


PAGE = """\
# Every claim of the lecture, tried

Written by `make gallery` from runs at the size `{size}`, with torch {torch_version}. Each recipe is one \
script that reads from top to bottom; `--help` explains its options, `--size full` takes a larger \
experiment. Every run can be looked at in TensorBoard, with all contenders of a claim in one chart: \
`tensorboard --logdir runs`.

| recipe | the lecture says | borne out by this run | took (two cores, at times busy) |
|---|---|---|---|
{verdicts}

{sections}

## train

`python {command}`

Test accuracy {accuracy:.1%} after {epochs} epochs, {seconds:.0f} seconds; measured after the last epoch, \
which is not the best one of several.
"""
HELD = {True: "yes", False: "**no**", None: "too small to say"}


def page(size: str, results: dict[str, dict[str, Any]]) -> str:
    """recipes.md."""
    shown = {name: command for name, command in commands(size).items() if name in results}
    command = shown.pop("train")
    verdicts = "\n".join(verdict_row(name, results[name]) for name in shown)
    sections = "\n\n".join(section(name, command, results[name]) for name, command in shown.items())
    return PAGE.format(size=size, verdicts=verdicts, sections=sections, command=command, **results["train"])


def verdict_row(name: str, result: dict[str, Any]) -> str:
    """The outcome of one recipe in the page's table."""
    seconds = result["seconds"]
    took = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    cells = [f"[{name}](#{name})", result["claim"].rstrip("."), HELD[result["borne_out"]], took]
    return f"| {' | '.join(cells)} |"


def section(name: str, command: str, result: dict[str, Any]) -> str:
    """What came of one recipe."""
    pictures = [f"![{Path(png).stem} of {name}](images/recipes/{name}/{png})" for png in result["pictures"]]
    table = ["```text", *map(str.rstrip, result["table"]), "```"]
    head = [f"## {name}", f"`python {command}`", result["verdict"]]
    return "\n\n".join([*head, "\n".join(pictures), "\n".join(table)])


def main() -> None:
    """Parse and run; a recipe that fails ends the gallery, the page stays as it was."""
    config = parse(Config)
    with plain_endings():
        run(config)


if __name__ == "__main__":
    main()
