"""Every entry of the table against torch.autograd: values, VJPs, JVPs and second order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchopt_course.autograd import PRIMITIVES

from .agreement import TOLERANCE, check_first_order, check_second_order
from .judge.quick import JUDGED
from .samples import FIRST_ORDER, SAMPLES, SINGLE_PRECISION, Draw, Turn

# What torch says of arguments that samples give it on purpose.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Implicit dimension choice", "ignore:Using padding='same'", "ignore:reduction. 'mean' divides"
)
# In test_distributions.py and test_flat.py.
ELSEWHERE = {"standard_gamma", "sample_dirichlet", "underivable", "unmoved", "zeta"}


def test_every_primitive_has_a_sample():
    assert set(PRIMITIVES) <= {*SAMPLES, *JUDGED, *ELSEWHERE}


@pytest.mark.parametrize("name", list(SAMPLES))
def test_all_modes_agree_with_torch(name: str):
    @settings(max_examples=5)
    @given(st.data())
    def check(data: st.DataObject):
        f, inputs = SAMPLES[name](Draw(data, torch.float64))
        tolerance = 1e-6 if name in SINGLE_PRECISION else TOLERANCE[torch.float64]
        g = check_first_order(f, inputs, tolerance)
        if name not in FIRST_ORDER:
            check_second_order(f, inputs, g, tolerance)

    check()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_every_case_of_a_sample_agrees_with_torch(name: str):
    turn, cases = 0, 1

    @settings(max_examples=1)
    @given(st.data())
    def check(data: st.DataObject):
        nonlocal cases
        draw = Turn(data, torch.float64, turn)
        f, inputs = SAMPLES[name](draw)
        cases = draw.cases
        tolerance = 1e-6 if name in SINGLE_PRECISION else TOLERANCE[torch.float64]
        g = check_first_order(f, inputs, tolerance)
        if name not in FIRST_ORDER:
            check_second_order(f, inputs, g, tolerance)

    while turn < cases:
        check()
        turn += 1


@pytest.mark.parametrize("name", list(SAMPLES))
def test_float32_agrees_with_torch(name: str):
    @settings(max_examples=3)
    @given(st.data())
    def check(data: st.DataObject):
        f, inputs = SAMPLES[name](Draw(data, torch.float32))
        check_first_order(f, inputs, TOLERANCE[torch.float32])

    check()


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_scaled_by_frequency_with_repeated_rows(padding: int | None) -> None:
    # Found once by chance: only the gradient is divided by how often a row was looked up, not the tangent.
    tokens, weight = torch.tensor([0, 1, 2, 2, 2, 1]), torch.randn(5, 3, dtype=torch.float64)

    def f(w: Any) -> Any:
        return torch.nn.functional.embedding(tokens, w, padding, scale_grad_by_freq=True)

    g = check_first_order(f, (weight,), 1e-10)
    check_second_order(f, (weight,), g, 1e-10)


@pytest.mark.parametrize(
    "lengths",
    [
        ((6, 5), (3, 2)),
        (torch.tensor([6, 5]), torch.tensor([3, 2])),
        ((6,), (3,)),
        (torch.tensor(6), torch.tensor(3)),
    ],
    ids=["numbers", "tensors", "numbers of one", "tensors of one"],
)
def test_lengths_of_ctc_in_every_form(lengths: Any) -> None:
    batch = () if len(torch.as_tensor(lengths[0]).reshape(-1)) == 1 else (2,)
    log_probs = torch.randn(6, *batch, 4, dtype=torch.float64).log_softmax(-1)
    targets = torch.tensor([1, 2, 3]).expand(*batch, 3)

    def f(x: Any) -> Any:
        return torch.nn.functional.ctc_loss(x, targets, *lengths, reduction="sum")

    check_first_order(f, (log_probs,), 1e-10)
