"""The programs of those pages that are no notebooks run, with the names that a reader has in a training."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torchopt_course as optim

from ..helpers import ROOT

# Those whose programs build on one another have tests of their own.
PAGES = ["docs/low_precision.md", "docs/optimizers.md", "docs/schedulers.md", "docs/howto/own_project.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def programs(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def reader(page: str) -> dict[str, Any]:
    """A model in training, and whatever else the page takes for granted."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if "precision" in page else torch.float32
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    inputs, targets = torch.randn(64, 4, dtype=dtype), torch.randint(0, 3, (64,))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    names = {
        "torch": torch,
        "F": F,
        "optim": optim,
        "loss_of": F.cross_entropy,
        "summary_writer": MagicMock(),
        "model": model,
        "bfloat16_model": copy.deepcopy(model).to(torch.bfloat16),
        "optimizer": optimizer,
        "inputs": inputs,
        "targets": targets,
        "loader": DataLoader(TensorDataset(inputs, targets), 16),
        "scheduler": optim.lr_scheduler.ConstantLR(optimizer),
    }
    [lion] = [each for each in programs(README) if "class Lion" in each]
    exec(lion.partition("\n\n\nmodel =")[0], names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_its_programs_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = programs((ROOT / page).read_text(encoding="utf-8"))
    assert len(found) >= 2
    for program in found:
        exec(program, reader(page))
