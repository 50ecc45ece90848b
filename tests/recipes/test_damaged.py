"""The files of a run, changed by hand or lost: gone on with rightly, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.common.errors import CheckpointError
from recipes.train import Config
from recipes.trainer.run import run

pytestmark = pytest.mark.slow
FINISHED = Config(epochs=2, batch_size=500, save_every=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(Config(**{**vars(FINISHED), "logdir": folder}))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, for each test to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def again(folder: Path, epochs: int = 2) -> Any:
    return run(Config(**{**vars(FINISHED), "logdir": folder, "epochs": epochs}))


def test_an_outcome_that_is_not_whole_is_written_anew(finished: Path, folder: Path) -> None:
    before = json.loads((finished / "result.json").read_text())
    for text in ("cut off", '{"epochs": 2}', "[]", ""):
        (folder / "result.json").write_text(text)
        assert again(folder).summary() == before
        assert json.loads((folder / "result.json").read_text()) == before


def unlinked(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_text("")


def without_content(path: Path) -> None:
    path.write_text("{}\n" * len(path.read_text().splitlines()))


def not_json(path: Path) -> None:
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


@pytest.mark.parametrize("damage", [unlinked, emptied, without_content, not_json])
@pytest.mark.parametrize("epochs", [2, 3])
def test_a_log_without_its_epochs_is_written_anew(
    damage: Callable[[Path], None], epochs: int, folder: Path
) -> None:
    before = (folder / "metrics.jsonl").read_text().splitlines()
    damage(folder / "metrics.jsonl")
    again(folder, epochs)
    after = (folder / "metrics.jsonl").read_text().splitlines()
    assert after[:2] == before
    assert len(after) == epochs


def lose(content: dict[str, Any]) -> None:
    del content["training"]["loss_sum"]


def reshape(content: dict[str, Any]) -> None:
    weights = content["training"]["model"]
    weights["hidden.weight"] = weights["hidden.weight"][:3]


@pytest.mark.parametrize("change", [lose, reshape])
def test_a_checkpoint_of_something_else_is_refused(
    change: Callable[[dict[str, Any]], None], folder: Path
) -> None:
    newest = max(folder.glob("step-*.pt"))
    content = torch.load(newest)
    change(content)
    torch.save(content, newest)
    with pytest.raises(CheckpointError, match="does not fit this run"):
        again(folder, epochs=3)


def test_events_that_are_lost_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (events,) = folder.glob("events.out.*")
    events.rename(folder / "events.out.tfevents.x.torchopt_course")
    assert again(folder, epochs=3).epochs == 3
    assert f"{events} is not what it was: TensorBoard will not show" in capsys.readouterr().err
