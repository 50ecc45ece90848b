"""The LR range test leaves no trace in a loader: the next epoch is the one that would have come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler

from torchopt_course import lr_range_test

from .ranges import NOTHING
from .twins import make_optimizer


class Epochs(Sampler[int]):
    """Shuffles by the number of the epoch, and by numbers of its own."""

    def __init__(self) -> None:
        self.epoch = 0
        self.own = np.random.default_rng(3)

    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = torch.randperm(20, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[i] for i in self.own.permutation(20)])


class Reversed(Sampler[int]):
    """Wraps another, as those do that share the rows among processes."""

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        return reversed(list(self.sampler))


class Augmented(Dataset[torch.Tensor]):
    """Adds noise from generators of its own."""

    def __init__(self) -> None:
        self.generators = random.Random(1), np.random.RandomState(2)
        self.python, self.numpy = self.generators
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> torch.Tensor:
        self.seen.append(i)
        return torch.tensor([i + self.python.random(), self.numpy.random()])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


LOADERS: dict[str, Callable[[Dataset[Any]], Any]] = {
    "loader": lambda data: DataLoader(data, 7, shuffle=True, generator=generator()),
    "sampler": lambda data: DataLoader(data, 7, sampler=RandomSampler(data, generator=generator())),  # type: ignore[arg-type]
    "batch sampler": lambda data: DataLoader(
        data,
        batch_sampler=BatchSampler(RandomSampler(data, generator=generator()), 7, False),  # type: ignore[arg-type]
    ),
    "sampler of a sampler": lambda data: DataLoader(
        data, 7, sampler=Reversed(RandomSampler(data, generator=generator()))
    ),  # type: ignore[arg-type]
    "epochs": lambda data: DataLoader(data, 7, sampler=Epochs()),
    "batches of epochs": lambda data: DataLoader(data, batch_sampler=BatchSampler(Epochs(), 7, False)),
    "sampler alone": lambda data: RandomSampler(data, generator=generator()),  # type: ignore[arg-type]
    "workers": lambda data: DataLoader(data, 7, shuffle=True, num_workers=1, persistent_workers=True),
}


@pytest.mark.parametrize("kind", [*LOADERS])
def test_what_a_loader_remembers(kind: str) -> None:
    def epochs(with_test: bool) -> list[Any]:
        torch.manual_seed(0)
        loader = LOADERS[kind](Augmented())
        if kind != "workers":
            list(loader)
        if with_test:
            found = lr_range_test(lambda b: 1.0, loader, NOTHING, make_optimizer(), iterations=30)
            assert len(found.lrs) == 30  # the loader was begun again
        return [torch.as_tensor(batch).tolist() for _ in range(2) for batch in loader]

    assert epochs(with_test=True) == epochs(with_test=False)
