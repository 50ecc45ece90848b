"""Operators where numbers end, against torch.autograd: NaN, infinities, zeros, ties, nothing at all."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("expecttest", reason="torch's data base of operators needs it")

from .judge.extreme_cases import How
from .judge.extremes import differences

# Each was once another number or NaN than torch's, and each for a reason of its own.
ONCE_WRONG = [
    *("maximum", "clamp", "amax", "cumprod", "copysign", "scatter_reduce.amax", "div.floor_rounding"),
    *("nn.functional.hardswish", "nn.functional.huber_loss", "nn.functional.embedding_bag"),
    *("addcdiv", "linalg.cross", "addr"),
]


@pytest.mark.parametrize("name", ONCE_WRONG)
def test_what_was_once_wrong_is_torch_s(name: str):
    assert not differences(name, How(samples=1))


# The same in other memory, and in half precision.
ONCE_WRONG_ELSEWHERE = [
    ("to", How(layout="transposed")),
    ("view_copy", How(layout="transposed")),
    ("as_strided.partial_views", How(layout="with gaps")),
    *(
        (name, How(torch.float16))
        for name in ("baddbmm", "addr", "native_group_norm", "nn.functional.batch_norm")
    ),
]


@pytest.mark.parametrize(("name", "how"), ONCE_WRONG_ELSEWHERE)
def test_in_other_memory_and_in_half_precision(name: str, how: How):
    assert not differences(name, how._replace(samples=1))
