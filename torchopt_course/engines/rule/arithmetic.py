"""What the words of a rule mean for numbers that are the same for all elements: once, in double precision.

On the host they are numpy's, which divides by zero as the engines do; a number that is known on a device
only, or through which gradients flow, is a tensor of torch, and so is what is computed of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .words import OF_NUMBERS, TENSORS

_NUMPYS: Mapping[str, Callable[..., Any]] = {
    **{
        word: getattr(np, word)
        for word in (
            *("abs", "sign", "square", "sqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh"),
            *("floor", "ceil", "maximum", "minimum"),
        )
    },
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "clamp": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "where": lambda condition, x, y: _as_numpys(x if condition else y),
    "fill": lambda like, number: _as_numpys(number),
    "real": lambda truth, like: np.float64(truth),
}


def computed(word: str, operands: Sequence[Any]) -> Any:
    """A word said of numbers: Python's, numpy's of double precision, or tensors of one element."""
    like = next((each for each in operands if isinstance(each, Tensor)), None)
    if like is not None:
        if word not in OF_NUMBERS:
            operands = [_as_tensor(each, like) for each in operands]
        return TENSORS[word](*operands)
    if not any(isinstance(each, np.generic) for each in operands):
        return TENSORS[word](*operands)  # of coefficients alone: Python's errors are the user's
    with np.errstate(all="ignore"):
        return _NUMPYS.get(word, TENSORS[word])(*operands)


def _as_tensor(number: Any, like: Tensor) -> Tensor:
    if isinstance(number, Tensor):
        return number
    dtype = torch.bool if isinstance(number, bool | np.bool_) else torch.float64
    return torch.full((), number, dtype=dtype, device=like.device)


def _as_numpys(number: Any) -> Any:
    """A number of the formula's text takes part in what is known of tensors: the next word finds numpy's."""
    return np.bool_(number) if isinstance(number, bool | np.bool_) else np.float64(number)


def plain(number: Any) -> Any:
    """Numbers of numpy's as Python's."""
    return number.item() if isinstance(number, np.generic) else number
