"""Real pictures, split once and for all, held in memory as one tensor.

| | rows | pixels | test part | validation part |
|---|---|---|---|---|
| digits (inside scikit-learn) | 1,797 | 8 x 8 | 360 | 288 of the other 1,437 |
| Fashion-MNIST | 70,000 | 28 x 28 | 10,000, the official ones | 10,000 of the other 60,000 |

Learning rates are chosen by training without the validation part and measuring on it (`split="validation"`).
The test part is looked at only with the finished choice (`split="test"`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

DataName = Literal["digits", "fashion-mnist"]
Split = Literal["test", "validation"]

# The split belongs to the data, not to the run: every seed and every optimizer is measured on the same rows.
SPLIT_SEED = 0

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """The rows to train on and the rows to measure on, with the row numbers they had in the source."""

    train_inputs: Tensor
    """rows x pixels, or characters of a text"""
    train_targets: Tensor
    eval_inputs: Tensor
    eval_targets: Tensor
    train_rows: Tensor
    eval_rows: Tensor
    side: int
    """Pixels from left to right, and from top to bottom; characters of a row of text."""
    classes: tuple[str, ...]
    """What a target's number means."""

    def first(self, rows: int) -> Data:
        """The same with fewer rows to train on: a random part, for experiments that need many runs."""
        dice = torch.Generator().manual_seed(SPLIT_SEED)
        chosen = torch.randperm(len(self.train_rows), generator=dice)[:rows]
        return self.with_rows(chosen)

    def with_rows(self, chosen: Tensor | slice) -> Data:
        """The same with these rows to train on."""
        names = ("train_inputs", "train_targets", "train_rows")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def sha256(self) -> str:
        """Digest of everything a training sees: equal data, equal digest."""
        digest = hashlib.sha256()
        for tensor in (self.train_inputs, self.train_targets, self.eval_inputs, self.eval_targets):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@cache  # an experiment trains many times on the same rows
def load_data(
    name: DataName, split: Split, device: torch.device | str = "cpu", data_dir: Path | None = None
) -> Data:
    """The named data on `device`: they are small, and a slice of a tensor costs microseconds.

    `data_dir` is where files of Fashion-MNIST lie or are to be downloaded to. Raises `ValueError` for an
    unknown name, `DataError` for files that are missing or are not what they should be.
    """
    if name == "digits":
        inputs, targets = load_digits()
        train, held_out = stratified(torch.arange(len(targets)), targets, 0.2)
        classes, side, validation_share = DIGITS, 8, 0.2
    elif name == "fashion-mnist":
        from recipes.common.fashion_mnist import load_fashion_mnist

        inputs, targets = load_fashion_mnist(data_dir)
        train, held_out = torch.arange(60_000), torch.arange(60_000, 70_000)
        classes, side, validation_share = CLOTHES, 28, 1 / 6
    else:
        raise ValueError(f"data must be one of {', '.join(get_args(DataName))}, not {name!r}")

    if split == "validation":  # the test part is out of reach from here
        train, held_out = stratified(train, targets, validation_share)
    train = train.sort().values  # in the order of the source; every epoch shuffles them anyway
    return Data(
        train_inputs=inputs[train].to(device),
        train_targets=targets[train].to(device),
        eval_inputs=inputs[held_out].to(device),
        eval_targets=targets[held_out].to(device),
        train_rows=train,
        eval_rows=held_out,
        side=side,
        classes=classes,
    )


def load_digits() -> tuple[Tensor, Tensor]:
    """1797 x 64 grey values scaled to [0, 1], and the digit that each row shows."""
    # Imported here because it takes a second, which `--help` need not wait.
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, digits = sklearn_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)


def stratified(rows: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Divide `rows` at random: most of them, and a share in which every class is as frequent as before."""
    from sklearn.model_selection import train_test_split

    parts: list[Any] = train_test_split(
        rows.numpy(), test_size=share, random_state=SPLIT_SEED, stratify=targets[rows].numpy()
    )
    most, some = map(torch.from_numpy, parts)
    return most, some
