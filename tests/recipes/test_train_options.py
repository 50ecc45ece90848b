"""Options of train.py: those without effect are refused, those of the optimizer reach it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.common.errors import OptionError
from recipes.train import Config
from recipes.trainer.checks import check
from recipes.trainer.run import run, set_up


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_lr": 0.01}, "--max-lr has an effect only with --scheduler cyclic"),
        ({"cycle_epochs": 3, "scheduler": "plateau"}, "--cycle-epochs has an effect only with"),
        ({"shard": True}, "--shard has an effect only with several processes"),
        ({"momentum": 0.0}, "--momentum has an effect only with --optimizer sgd or momentum or rmsprop"),
        ({"data_dir": Path("/no/such/folder")}, "--data-dir has an effect only with --data fashion-mnist"),
        ({"momentum": 0.9}, "--momentum has an effect only with --optimizer sgd or momentum or rmsprop"),
        (
            {"optimizer": "sgd", "betas": (0.9, 0.99)},
            "--betas has an effect only with --optimizer adam or adamw",
        ),
        (
            {"optimizer": "adagrad", "nesterov": True},
            "--nesterov has an effect only with --optimizer sgd or momentum",
        ),
        ({"optimizer": "sgd", "nesterov": True}, "(?i)--optimizer sgd: .*nesterov"),
        ({"betas": (0.9, 1.5)}, "--optimizer adam: .*1.5"),
        ({"optimizer": "momentum", "momentum": -1.0}, "--momentum must be a number from 0 up, not -1.0"),
        ({"optimizer": "sgd", "momentum": math.inf}, "--momentum must be a number from 0 up, not inf"),
        ({"weight_decay": math.inf}, "--weight-decay must be a number from 0 up, not inf"),
        ({"weight_decay": math.nan}, "--weight-decay must be a number from 0 up, not nan"),
        ({"save_every": math.nan}, "--save-every must be a number from 0 up, not nan"),
        (
            {"scheduler": "cyclic", "lr": 0.1, "max_lr": 0.1},
            "--max-lr .* above the learning rate, 0.1, not 0.1",
        ),
        ({"batch_size": 2**63}, r"--batch-size must be from 1 to 2\*\*63 - 1, not 9223372036854775808"),
        ({"epochs": 0}, "--epochs must be from 1"),
        ({"device": "cpu:1"}, "--device must be cpu, cuda or cuda:N, not 'cpu:1'"),
        ({"device": "cuda:99"}, "this machine has . CUDA devices; --device cpu needs none"),
        ({"offload": True}, "--offload keeps on the host what a GPU computes with, and --device is cpu"),
        ({"lr": 0.0, "scheduler": "cyclic"}, "--lr 0 needs --max-lr for a cycle"),
        ({"lr": 0.0, "scheduler": "plateau"}, "--scheduler plateau lowers --lr, and 0 is lowest"),
    ],
)
def test_what_has_no_effect_or_cannot_work_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check(Config(**change))


def test_options_reach_the_optimizer() -> None:
    group = set_up(
        Config(optimizer="sgd", momentum=0.8, nesterov=True, weight_decay=0.01)
    ).optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 0.01)
    group = set_up(Config(optimizer="adamw", betas=(0.8, 0.99))).optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.8, 0.99), 0.01)  # its own default
    group = set_up(Config(optimizer="adamw", weight_decay=0.0)).optimizer.param_groups[0]
    assert group["weight_decay"] == 0.0  # a number that was given, like any other
    group = set_up(Config(optimizer="momentum", momentum=0.0)).optimizer.param_groups[0]
    assert group["momentum"] == 0.0


def test_our_autograd_in_mixed_precision_has_torchs_weights(tmp_path: Path) -> None:
    ours, theirs = (
        run(Config(epochs=1, batch_size=500, amp=True, autograd=who, logdir=tmp_path / who))  # type: ignore[arg-type]
        for who in ("mini", "torch")
    )
    assert ours.model is not None
    assert theirs.model is not None
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0.02, atol=2e-3)


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(shell: Any, tmp_path: Path) -> None:
    train = Path(__file__).resolve().parents[2] / "recipes" / "train.py"
    done = shell(
        train, "--compile", "--epochs", "1", "--logdir", tmp_path / "run",
        PATH="/nonexistent", CXX="/nonexistent/c++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("train.py: torch.compile failed: ")
    assert "Traceback" not in done.stderr
