"""The comparison of five optimizers, the search for their rates, and the line that opens TensorBoard."""

from __future__ import annotations

import math
import shlex
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recipes import choose_lr, five_optimizers
from recipes.choose_lr import GRID, validation_loss, winner
from recipes.common import tensorboard as board
from recipes.common.optimizers import LEARNING_RATES
from recipes.common.tensorboard import tensorboard_command
from recipes.train import Config
from recipes.trainer.measure import Epoch


@pytest.mark.slow
def test_all_five_optimizers_reach_96_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["five_optimizers.py", "--logdir", str(tmp_path / "runs")])
    five_optimizers.main()

    out = capsys.readouterr().out
    table = out.splitlines()[:8]
    assert len({len(line) for line in table}) == 1  # aligned
    rows = [line.split() for line in table[3:]]
    assert [row[0] for row in rows] == ["SGD", "Momentum", "Adagrad", "RMSprop", "Adam"]
    for _, rate, accuracy, loss, seconds, microseconds in rows:
        assert float(rate) in GRID
        assert float(accuracy.rstrip("%")) >= 96
        assert 0 < float(loss) < 0.1
        assert float(seconds) > 0
        assert float(microseconds) > 0
    names = {"sgd", "momentum", "adagrad", "rmsprop", "adam"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == names
    assert all((tmp_path / "runs" / name / "result.json").exists() for name in names)
    assert out.splitlines()[-1].strip() == tensorboard_command(tmp_path / "runs")


def test_the_tensorboard_line_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "my project" / ".venv" / "bin"
    scripts.mkdir(parents=True)
    program = scripts / "tensorboard"
    program.write_text("")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(board.sysconfig, "get_path", lambda name: str(scripts))

    monkeypatch.chdir(tmp_path / "my project")
    assert tensorboard_command(Path("runs")) == ".venv/bin/tensorboard --logdir runs"
    monkeypatch.chdir("/")
    elsewhere = tensorboard_command(Path("my runs"))
    assert shlex.split(elsewhere) == [str(program.relative_to("/")), "--logdir", "my runs"]

    program.unlink()
    monkeypatch.setattr(sys, "executable", "/somewhere/else/python")
    assert "python -m tensorboard.main --logdir runs" in tensorboard_command(Path("runs"))


def test_the_rate_with_the_lowest_loss_wins_and_one_that_diverges_cannot() -> None:
    runs: list[None] = []
    sane = Config(optimizer="sgd", lr=0.1, epochs=1)
    losses = {
        0.1: validation_loss(sane, seeds=(0, 1), on_run=lambda: runs.append(None)),
        1e30: validation_loss(replace(sane, lr=1e30), seeds=(0, 1), on_run=lambda: None),
    }
    assert len(runs) == 2
    assert 0.5 < losses[0.1] < 2.3 < losses[1e30] == math.inf  # 2.3: ten digits, nothing learnt
    assert winner(losses) == 0.1


def test_the_search_measures_the_last_epochs_on_the_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Config] = []

    def pretend(config: Config) -> SimpleNamespace:
        asked.append(config)
        later = [epoch_with_loss(config.seed + i) for i in range(10)]
        return SimpleNamespace(epochs=lambda last: [epoch_with_loss(1000), *later])

    monkeypatch.setattr(choose_lr, "set_up", pretend)
    assert validation_loss(Config(split="test"), seeds=(0, 1), on_run=lambda: None) == 5.0
    assert [(config.seed, config.split) for config in asked] == [(0, "validation"), (1, "validation")]


def epoch_with_loss(loss: float) -> Epoch:
    return Epoch(1, 0.0, loss, *[0.0] * 7)


def test_the_search_prints_every_rate_and_the_winners(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pretend(config: Config, *_: object) -> float:
        assert config.lr is not None
        return abs(math.log(config.lr / LEARNING_RATES[config.optimizer]))

    monkeypatch.setattr(choose_lr, "validation_loss", pretend)
    monkeypatch.setattr(sys, "argv", ["choose_lr.py"])
    choose_lr.main()
    title, *table, winners, verdict = capsys.readouterr().out.splitlines()
    assert "3 seeds" in title
    _head, _rule, *rows = table
    assert len(rows) == len(LEARNING_RATES)
    for line in rows:
        name, *cells = line.split()
        (starred,) = (rate for rate, cell in zip(GRID, cells, strict=True) if cell.endswith("*"))
        assert starred == LEARNING_RATES[name]
    assert winners == f"LEARNING_RATES = {LEARNING_RATES}"
    assert verdict.endswith("the same.")
