"""Several processes: the same training as on one, and interchangeable with it at any step."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.train import Config
from recipes.trainer.checkpoint import Checkpoints
from recipes.trainer.run import run

from ..processes import start, start_ranks
from .processes import train_by_command

pytestmark = pytest.mark.processes

# No batch norm and no dropout, which each process would do for itself. A last batch of 12 rows.
CONFIG = Config(epochs=2, batch_size=75, optimizer="adam", lr=0.003)
WORDS = ["--epochs=2", "--batch-size=75", "--optimizer=adam", "--lr=0.003", "--save-every=0"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The training state at the end of a run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    run(Config(**{**vars(CONFIG), "logdir": folder}))
    return final_state(folder)


def final_state(folder: Path) -> dict[str, Any]:
    content = Checkpoints(folder).newest()
    assert content is not None
    return content["training"]  # type: ignore[no-any-return]


def finish(size: int, folder: Path, *words: str, code: int = 0, after: int | None = None) -> str:
    """Train on so many processes to the end, or to a SIGTERM after so many steps; returns what was said."""
    output = folder.with_suffix(".output")
    command = [*WORDS, f"--logdir={folder}", *words]
    processes = (
        start_ranks(size, train_by_command, command, output)
        if size > 1
        else [start(train_by_command, command, output)]
    )
    if after is not None:
        deadline = time.monotonic() + 100
        while not any(int(path.name[5:15]) >= after for path in folder.glob("step-*.pt")):
            assert time.monotonic() < deadline
            assert processes[0].is_alive(), output.read_text()
            time.sleep(0.005)
        os.kill(processes[-1].pid or 0, signal.SIGTERM)  # one hears of it, all stop
    for process in processes:
        process.join(120)
    said = output.read_text()
    assert [process.exitcode for process in processes] == [code] * size, said
    return said


def assert_close(folder: Path, state: dict[str, Any]) -> None:
    mine = final_state(folder)
    for name, weight in state["model"].items():
        torch.testing.assert_close(mine["model"][name], weight, rtol=0, atol=1e-5)
    for index, values in state["optimizer"]["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(mine["optimizer"]["state"][index][name], value, rtol=1e-4, atol=1e-5)
    assert (mine["epochs_done"], mine["steps_done"]) == (state["epochs_done"], state["steps_done"])


@pytest.mark.parametrize("words", [[], ["--shard"]], ids=["DDP", "FSDP2"])
def test_two_processes_end_with_the_weights_of_one(
    words: list[str], alone: dict[str, Any], tmp_path: Path
) -> None:
    said = finish(2, tmp_path / "run", *words)
    assert_close(tmp_path / "run", alone)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert said.count("microseconds per step()") == 1  # only the first process speaks
    assert result["epochs"] == 2
    assert len(list((tmp_path / "run").glob("events.out*"))) == 1


@pytest.mark.parametrize(
    ("before", "then", "words"),
    [(2, 1, []), (1, 2, []), (2, 1, ["--shard"]), (1, 2, ["--shard"])],
)
def test_another_number_of_processes_goes_on(
    before: int, then: int, words: list[str], alone: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    of = {1: [], 2: words}  # one process has nothing to shard
    said = finish(before, folder, *of[before], after=7, code=143)
    assert said.count("the same command goes on from there") == 1
    stopped_at = int(re.findall(r"and (\d+) steps", said)[0])
    assert 7 <= stopped_at < 40
    finish(then, folder, *of[then])
    assert_close(folder, alone)


def test_what_one_process_meets_ends_all_with_one_line(tmp_path: Path) -> None:
    finish(1, tmp_path / "run")
    said = finish(2, tmp_path / "run", "--optimizer=sgd", code=2)
    assert said.splitlines()[-1].startswith("train.py: ")
    assert "a run with optimizer adam, not sgd" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--autograd=mini"], "--autograd mini trains on one process"), (["--batch-size=1"], "at least 2")],
)
def test_what_several_processes_cannot_do(words: list[str], message: str, tmp_path: Path) -> None:
    said = finish(2, tmp_path / "run", *words, code=2)
    assert said.count("\n") == 1
    assert message in said
