"""Evaluate with averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .engines.storage import as_read
from .stepped import SteppedOptimizer
from .transforms.average import ema


@contextmanager
def averaged_weights(optimizer: SteppedOptimizer) -> Iterator[None]:
    """Within, parameters are the averages that :class:`ema` has kept; then what they were, bit for bit::

        with averaged_weights(optimizer):
            accuracy = evaluate(model)
            torch.save(model.state_dict(), "averaged.pt")

    A parameter that has not been stepped is its own average. What is written to parameters meanwhile is lost
    in the end. The weights are kept in a copy, which takes as much memory as they do; the optimizer's states,
    and so its ``state_dict()``, stay as they are.

    Args:
        optimizer: one of this package's with the transform :class:`ema`, :class:`Mixed` too.

    Raises:
        TypeError: not such an optimizer.
        ValueError: it keeps no average.
        RuntimeError: its weights are replaced already; or, in ``step()`` meanwhile, that they are.
    """
    if not isinstance(optimizer, SteppedOptimizer):
        raise TypeError(f"optimizer must be one of torchopt_course, got {type(optimizer).__name__}")
    pairs: list[tuple[Tensor, Tensor]] = []
    has_average = False
    for i, group in enumerate(optimizer.param_groups):
        if not any(isinstance(each, ema) for each in optimizer._part(i).transforms):
            continue
        has_average = True
        own = [(param, as_read(optimizer.state.get(param, {}), "ema")) for param in group["params"]]
        pairs += [(param, average) for param, average in own if average is not None]
    if not has_average:
        raise ValueError(
            f"{type(optimizer).__name__} keeps no average of its weights: give it transforms=[ema()]"
        )
    with optimizer._paused("its weights are replaced by their averages: leave averaged_weights() first"):
        before = [param.detach().clone(memory_format=torch.preserve_format) for param, _ in pairs]
        try:
            with torch.no_grad():
                for param, average in pairs:
                    param.copy_(average)
            yield
        finally:
            with torch.no_grad():
                for (param, _), own_weights in zip(pairs, before, strict=True):
                    param.copy_(own_weights)
