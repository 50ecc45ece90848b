"""Operators where numbers end, against torch.autograd: NaN, infinities, zeros, ties, nothing at all."""

from __future__ import annotations

import pytest

pytest.importorskip("expecttest", reason="torch's data base of operators needs it")

from .judge.extremes import differences

# Each was once another number or NaN than torch's, and each for a reason of its own.
ONCE_WRONG = [
    *("maximum", "clamp", "amax", "cumprod", "copysign", "scatter_reduce.amax", "div.floor_rounding"),
    *("nn.functional.hardswish", "nn.functional.huber_loss", "nn.functional.embedding_bag"),
]


@pytest.mark.parametrize("name", ONCE_WRONG)
def test_what_was_once_wrong_is_torch_s(name: str):
    assert not differences(name, samples=1)
