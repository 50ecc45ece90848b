"""Real handwritten digits, split once and for all, held in memory.

scikit-learn carries 1,797 scans of handwritten digits (8 x 8 pixels, grey values 0 to 16), so nothing
is downloaded. The rows are split in two steps:

    all rows 1797  ->  training part 1437  ->  training 1149
                       test part      360      validation 288

Learning rates are chosen by training on the 1,149 and measuring on the 288 (`split="validation"`). The
test part is looked at only with the finished choice (`split="test"`: train on 1,437, measure on 360).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

DataName = Literal["digits"]
Split = Literal["test", "validation"]

# The split belongs to the data, not to the run: every seed and every optimizer is measured on the same rows.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Data:
    """The rows to train on and the rows to measure on, with the row numbers they had in the source."""

    train_inputs: Tensor
    train_targets: Tensor
    eval_inputs: Tensor
    eval_targets: Tensor
    train_rows: Tensor
    eval_rows: Tensor


def load_data(name: DataName, split: Split, device: torch.device) -> Data:
    """The named data on `device`, as two big tensors: the data are small, and a slice costs microseconds."""
    inputs, targets = {"digits": load_digits}[name]()
    train_rows, eval_rows = split_rows(targets, split)
    return Data(
        train_inputs=inputs[train_rows].to(device),
        train_targets=targets[train_rows].to(device),
        eval_inputs=inputs[eval_rows].to(device),
        eval_targets=targets[eval_rows].to(device),
        train_rows=train_rows,
        eval_rows=eval_rows,
    )


def load_digits() -> tuple[Tensor, Tensor]:
    """1797 x 64 grey values scaled to [0, 1], and the digit that each row shows."""
    # Imported here because it takes a second, which `--help` need not wait.
    from sklearn.datasets import load_digits as sklearn_digits  # type: ignore[import-untyped]

    pixels, digits = sklearn_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)


def split_rows(targets: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """The numbers of the rows to train on and of the rows to measure on."""
    everything = torch.arange(len(targets))
    train_part, test_part = stratified_80_20(everything, targets)
    if split == "test":
        return train_part, test_part
    return stratified_80_20(train_part, targets)  # the test part is out of reach from here


def stratified_80_20(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Divide `rows` so that every class keeps its share in both halves."""
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    halves: list[Any] = train_test_split(
        rows.numpy(), test_size=0.2, random_state=SPLIT_SEED, stratify=targets[rows].numpy()
    )
    large, small = halves
    return torch.from_numpy(large), torch.from_numpy(small)
