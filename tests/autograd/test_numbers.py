"""Numbers next to variables: bit for bit what torch computes, though they are made tensors beforehand."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from torchopt_course.autograd import Variable
from torchopt_course.autograd.primitives.numbers import as_tensor

NUMBERS = st.one_of(st.integers(-(2**40), 2**40), st.floats(width=64), st.sampled_from([0.1, 2, -1, 3.0]))
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def bits(x: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    # Any NaN is as good as any other; -0.0 is not 0.0.
    x = torch.where(x.isnan(), torch.nan, x)
    return x.dtype, x.shape, bytes(x.reshape(-1).view(torch.uint8).tolist())


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPERATORS)
def test_the_result_and_the_gradient_are_torchs(
    op: Callable[[Any, Any], Any], dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    @given(number=NUMBERS, left=st.booleans())
    @example(number=0.0, left=True).via("zero has two signs, and one hash")
    @example(number=-0.0, left=True)
    @example(number=0.0, left=False)
    @example(number=2**24 + 1, left=False).via("not a float32")
    @example(number=2, left=False)
    @example(number=2.0, left=True)
    @example(number=1e-46, left=False).via("0 in float32")
    @example(number=1 + 2**-9, left=False).via("not a bfloat16")
    def check(number: float, left: bool) -> None:
        if op is operator.truediv:
            left = False  # torch computes c / x as (1 / x) * c, with one more rounding than ours
        data = torch.full(shape, 1.7, dtype=dtype)
        mine, theirs = Variable(data), data.clone().requires_grad_()
        for x in (mine, theirs):
            (op(number, x) if left else op(x, number)).sum().backward()
        a, b = (op(number, x) if left else op(x, number) for x in (mine, theirs))
        assert bits(a.detach()) == bits(b.detach())
        assert bits(mine.grad) == bits(theirs.grad)

    check()


def test_a_number_met_in_inference_mode_can_be_used_outside_of_it() -> None:
    with torch.inference_mode():
        as_tensor(0.123, torch.float32)
    x = Variable(2.0)
    (0.123 * x).backward()
    assert x.grad.item() == pytest.approx(0.123)


def test_the_memory_of_numbers_is_bounded() -> None:
    from torchopt_course.autograd.primitives import numbers

    for i in range(1, 2000):
        as_tensor(i / 7, torch.float64)
    assert len(numbers._known) <= 256
