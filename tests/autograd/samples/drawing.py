"""How a sample is drawn by hypothesis: shapes, layouts in memory, numbers where a function is defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


class Draw:
    """What a sample may ask for; all tensors of one case have one dtype."""

    def __init__(self, data: st.DataObject, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype
        self.generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000), label="seed"))

    def pick(self, options: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(list(options)))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        return tuple(self.data.draw(st.lists(st.integers(1, 4), min_size=low, max_size=high)))

    def pair(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two shapes that broadcast against each other."""
        full = self.shape(0, 3)
        kept = [self.data.draw(st.booleans()) for _ in full]
        other = tuple(n if keep else 1 for n, keep in zip(full, kept, strict=True))
        other = other[self.pick(range(len(other) + 1)) :]
        return (full, other) if self.pick([True, False]) else (other, full)

    def tensor(self, *shape: int, low: float | None = None, high: float = 1.0) -> Tensor:
        """Normal numbers, or uniform ones; contiguous in memory or not."""
        layout = self.pick(["contiguous", "transposed", "strided"])
        made = (
            tuple(reversed(shape))
            if layout == "transposed"
            else (*shape, 2)
            if layout == "strided"
            else shape
        )
        values = torch.empty(made, dtype=torch.float64)
        if low is None:
            values.normal_(generator=self.generator)
        else:
            values.uniform_(low, high, generator=self.generator)
        values = values.to(self.dtype)
        if layout == "transposed":
            return values.permute(*reversed(range(len(made)))) if made else values
        return values[..., 0] if layout == "strided" else values

    def labels(self, count: int, *shape: int) -> Tensor:
        return torch.randint(0, count, shape, generator=self.generator)

    def mask(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator) < 0.5

    def dim(self, shape: Sequence[int]) -> int:
        return self.pick(range(-len(shape), len(shape)))

    def dims(self, shape: Sequence[int]) -> Any:
        """None, one or several dimensions."""
        several = tuple(d for d in range(len(shape)) if self.pick([True, False]))
        return self.pick([None, *([self.dim(shape)] if shape else []), *([several] if several else [])])


class Turn(Draw):
    """Takes the cases of a sample in turn, where it would pick one by chance."""

    def __init__(self, data: st.DataObject, dtype: torch.dtype, turn: int) -> None:
        super().__init__(data, dtype)
        self.turn, self.cases = turn, 1

    def pick(self, options: Sequence[Any]) -> Any:
        first = options[0]
        if not (callable(first) or (isinstance(first, tuple) and first and callable(first[0]))):
            return super().pick(options)
        self.cases = max(self.cases, len(options))
        return options[self.turn % len(options)]


FIRST_ORDER = ("composite_hard",)  # torch itself has no second
# Where float64 cannot agree to 1e-10: a conversion to float32 on the way; torch's 1/6 is a float32 number.
SINGLE_PRECISION = ("convert", "composite_hard")
SAMPLES: dict[str, Callable[[Draw], Case]] = {}


def sample(function: Callable[[Draw], Case]) -> Callable[[Draw], Case]:
    SAMPLES[function.__name__.removesuffix("_")] = function
    return function
