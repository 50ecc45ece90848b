"""Run every recipe, and rebuild the page that shows them: `python recipes/gallery.py`, or `make gallery`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.command_line import parse, plain_endings

ROOT = Path(__file__).resolve().parents[1]

# In the order of the lecture.
RECIPES = (
    *("derivatives", "batch_size", "learning_rates", "loss_plane", "landscapes", "plateau", "cyclic"),
    *("sparse_features", "adaptive_steps", "adam_can_fail", "optimizers"),
)
TRAIN = {
    "smoke": "--epochs 2",
    "gallery": "--data fashion-mnist --model cnn --optimizer momentum --lr 0.005 --max-lr 0.1 "
    "--scheduler cyclic --cycle-epochs 4 --epochs 4 --batch-size 128",
    "full": "--data fashion-mnist --model cnn --optimizer momentum --lr 0.005 --max-lr 0.1 "
    "--scheduler cyclic --cycle-epochs 8 --epochs 8 --batch-size 128",
}


@dataclass(frozen=True)
class Config:
    """Run every recipe, and write a page with the pictures, tables and verdicts of these runs."""

    size: Literal["smoke", "gallery", "full"] = "gallery"
    """smoke: a minute or two in all; gallery: a quarter of an hour on two cores; full: hours."""
    logdir: Path = Path("runs/gallery")
    """Folder for the runs, one below it for each recipe; all of them in one TensorBoard."""
    docs: Annotated[
        Path | None,
        tyro.conf.arg(help_behavior_hint="(default: docs/ for the gallery's size, else --logdir)"),
    ] = None
    """Folder for the page, recipes.md, with images/recipes/ below it."""


def run(config: Config) -> None:
    """Every recipe as a user would call it, one after the other, then the page."""
    results: dict[str, dict[str, Any]] = {}
    commands = {name: ["--size", config.size] for name in RECIPES} | {
        "train": [*TRAIN[config.size].split(), "--fresh"]
    }
    for name, options in commands.items():
        print(f"\n== {name}", flush=True)
        folder = config.logdir / name
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, ROOT / "recipes" / f"{name}.py", *options, "--logdir", folder], check=True
        )
        results[name] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        print(f"== {name} took {time.perf_counter() - started:.0f} s", flush=True)
    docs = config.docs or (ROOT / "docs" if config.size == "gallery" else config.logdir)
    write_page(docs, config, results)


def write_page(docs: Path, config: Config, results: dict[str, dict[str, Any]]) -> None:
    """recipes.md and its pictures."""
    images = docs / "images" / "recipes"
    shutil.rmtree(images, ignore_errors=True)
    lines = [
        "# Every claim of the lecture, tried",
        "",
        f"Written by `make gallery` from runs at the size `{config.size}`, with torch "
        f"{results['train']['torch_version']}. Each recipe is one script that reads from top to bottom; "
        "`--help` explains its options, `--size full` takes the size of a paper. Every run can be looked at "
        "in TensorBoard: `tensorboard --logdir runs`.",
        "",
        "| recipe | the lecture says | borne out by this run |",
        "|---|---|---|",
    ]
    for name in RECIPES:
        held = "yes" if results[name]["borne_out"] else "**no**"
        lines.append(f"| [{name}](#{name}) | {results[name]['claim'].rstrip('.')} | {held} |")
    for name in RECIPES:
        result = results[name]
        pictures = [*([result["animation"]] if "animation" in result else []), *result["pictures"]]
        lines += [
            "",
            f"## {name}",
            "",
            f"`python recipes/{name}.py --size {config.size}`",
            "",
            result["verdict"],
            "",
        ]
        for picture in pictures:
            (images / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(config.logdir / name / picture, images / name / picture)
            lines.append(f"![{Path(picture).stem} of {name}](images/recipes/{name}/{picture})")
        lines += ["", "```text", *result["table"], "```"]
    lines += [
        "",
        "## train",
        "",
        f"`python recipes/train.py {TRAIN[config.size]}`",
        "",
        train_words(results["train"]),
    ]
    (docs / "recipes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\nwrote {docs / 'recipes.md'}")


def train_words(result: dict[str, Any]) -> str:
    """What one training reached."""
    return (
        f"Test accuracy {result['accuracy']:.1%} after {result['epochs']} epochs, {result['seconds']:.0f} "
        "seconds; measured after the last epoch, which is not the best one of several."
    )


def main() -> None:
    """Parse and run; a recipe that fails ends the gallery, the page stays as it was."""
    config = parse(Config)
    with plain_endings():
        run(config)


if __name__ == "__main__":
    main()
