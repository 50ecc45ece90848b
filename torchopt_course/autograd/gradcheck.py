"""``torch.autograd.gradcheck`` of variables: it moves numbers where they are, which a graph would notice.

So it is given plain tensors that require a gradient, and what is done with them is recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .module import record
from .traced import Traced


def _of_plain_tensors(check: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(check)
    def gradcheck(func: Any, inputs: Any, *args: Any, **kwargs: Any) -> bool:
        given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if not any(isinstance(x, Traced) for x in given):
            return check(func, inputs, *args, **kwargs)
        plain = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Traced) else x for x in given]
        with record():
            return check(func, tuple(plain), *args, **kwargs)

    return gradcheck


for _name in ("gradcheck", "gradgradcheck"):
    setattr(torch.autograd, _name, _of_plain_tensors(getattr(torch.autograd, _name)))
