"""Runs that are killed, stopped or broken, and what must come of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from recipes.train import Config

from ..processes import start
from .left_behind import curve, events_of
from .processes import train_by_command

# Batch norm, dropout, a schedule and an optimizer with state: all that could be forgotten. 10 steps an epoch.
CONFIG = Config(model="lenet", optimizer="adam", scheduler="cyclic", epochs=3, batch_size=150, save_every=0)
STEPS = 30
SMALL = Config(epochs=2, batch_size=500, optimizer="momentum")


def words_of(config: Config, folder: Path) -> list[str]:
    """The command line that gives this config."""
    words = [f"--logdir={folder}"]
    for name in ("model", "optimizer", "scheduler", "epochs", "batch_size", "save_every"):
        words.append(f"--{name.replace('_', '-')}={getattr(config, name)}")
    return words


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All points of all curves but those of the clock, as TensorBoard's own reader sees them."""
    events = events_of(folder)
    return {tag: curve(events, tag) for tag in events.Tags()["scalars"]}


def assert_same_run(folder: Path, other: Path) -> None:
    mine, theirs = (json.loads((f / "result.json").read_text()) for f in (folder, other))
    assert mine["weights_sha256"] == theirs["weights_sha256"]
    assert (mine["accuracy"], mine["loss"], mine["train_loss"]) == (
        theirs["accuracy"],
        theirs["loss"],
        theirs["train_loss"],
    )
    assert curves(folder) == curves(other)
    timeless = [
        [
            {name: value for name, value in json.loads(line).items() if "seconds" not in name}
            for line in (f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in (folder, other)
    ]
    assert timeless[0] == timeless[1]


def wait_until(condition: Callable[[], object], process: BaseProcess, output: Path) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert process.is_alive(), output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:15]) for path in folder.glob("step-*.pt"))


def kill_at_random(folder: Path, times: int, dice: random.Random) -> list[int]:
    """Start a run, kill it at some instant, again and again, and let it end; where it was when killed."""
    output, killed_at = folder.with_suffix(".output"), []
    for goal in sorted(dice.choices(range(STEPS), k=times)):
        process = start(train_by_command, words_of(CONFIG, folder), output)
        wait_until(lambda goal=goal: max(saved_steps(folder), default=0) >= goal, process, output)
        time.sleep(dice.random() * 0.02)  # somewhere in a step, or in writing a file
        process.kill()
        process.join()
        killed_at.append(max(saved_steps(folder), default=0))
    process = start(train_by_command, words_of(CONFIG, folder), output)
    process.join(120)
    assert process.exitcode == 0, output.read_text()
    return killed_at
