"""Every entry of the table against torch.autograd: values, VJPs, JVPs and second order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchopt_course.autograd import PRIMITIVES

from .agreement import TOLERANCE, check_first_order, check_second_order
from .samples import FIRST_ORDER, SAMPLES, SINGLE_PRECISION, Draw


def test_every_primitive_has_a_sample():
    assert set(PRIMITIVES) <= set(SAMPLES)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_all_modes_agree_with_torch(name: str):
    @settings(max_examples=8)
    @given(st.data())
    def check(data: st.DataObject):
        f, inputs = SAMPLES[name](Draw(data, torch.float64))
        tolerance = 1e-6 if name in SINGLE_PRECISION else TOLERANCE[torch.float64]
        g = check_first_order(f, inputs, tolerance)
        if name not in FIRST_ORDER:
            check_second_order(f, inputs, g, tolerance)

    check()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_float32_agrees_with_torch(name: str):
    @settings(max_examples=3)
    @given(st.data())
    def check(data: st.DataObject):
        f, inputs = SAMPLES[name](Draw(data, torch.float32))
        check_first_order(f, inputs, TOLERANCE[torch.float32])

    check()
