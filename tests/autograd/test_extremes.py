"""Operators where numbers end, against torch.autograd: NaN, infinities, zeros, ties, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from torchopt_course import autograd as ag

pytest.importorskip("expecttest", reason="torch's data base of operators needs it")


def assert_none_differs(name: str, **how: Any):
    from .judge.extreme_cases import How
    from .judge.extremes import differences

    assert not differences(name, How(**how, samples=1))


# Each was once another number or NaN than torch's, and each for a reason of its own.
ONCE_WRONG = [
    *("maximum", "clamp", "amax", "cumprod", "copysign", "scatter_reduce.amax", "div.floor_rounding"),
    *("nn.functional.hardswish", "nn.functional.huber_loss", "nn.functional.embedding_bag"),
    *("addcdiv", "linalg.cross", "addr"),
]


@pytest.mark.parametrize("name", ONCE_WRONG)
def test_what_was_once_wrong_is_torch_s(name: str):
    assert_none_differs(name)


# The same in other memory, and in half precision.
ONCE_WRONG_ELSEWHERE = [
    ("to", {"layout": "transposed"}),
    ("view_copy", {"layout": "transposed"}),
    ("as_strided.partial_views", {"layout": "with gaps"}),
    *((name, {"layout": "expanded"}) for name in ("logit", "cartesian_prod")),
    *((name, {"dtype": torch.float16}) for name in ("baddbmm", "addr", "native_group_norm")),
]


@pytest.mark.parametrize(("name", "how"), ONCE_WRONG_ELSEWHERE)
def test_in_other_memory_and_in_half_precision(name: str, how: dict[str, Any]):
    assert_none_differs(name, **how)


# Squares of such numbers, and logarithms on the way, are more than half precision can say.
IN_HALF_PRECISION: dict[str, tuple[float, Callable[[Any], Any]]] = {
    "layer_norm": (300.0, lambda x: F.layer_norm(x, (4,))),
    "batch_norm": (300.0, lambda x: F.batch_norm(x, None, None, training=True)),
    "logcumsumexp": (2.0, lambda x: x.logcumsumexp(0)),
}


@pytest.mark.parametrize("name", IN_HALF_PRECISION)
def test_recorded_and_forward_derivatives_in_half_precision_are_those_of_float64(name: str):
    scale, function = IN_HALF_PRECISION[name]
    torch.manual_seed(0)
    x, g, t = (torch.randn(8, 4).mul(each).half() for each in (scale, 1, 300))
    x_dot = torch.func.jvp(function, (x.double(),), (t.double(),))[1]
    (x_bar,) = torch.func.vjp(function, x.double())[1](g.double())
    variable = ag.Variable(x)
    (mine,) = torch.autograd.grad(function(variable), variable, g, create_graph=True)
    _, forward = ag.jvp(function, (x,), (t,))
    for ours, theirs in ((mine.detach(), x_bar), (forward, x_dot)):
        assert ours.dtype == torch.float16
        close = 1e-3 * theirs.abs().max().item()
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=close)


def test_a_gate_in_half_precision_does_not_overflow_on_the_way():
    x, g = torch.tensor([300.0, 9.0, -20.0, -8.0]).half(), torch.tensor([1000.0, 20000.0]).half()
    gradients = []
    for each in (x.clone().requires_grad_(), ag.Variable(x)):
        F.glu(each).backward(g)
        gradients.append(each.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[1].isfinite().all()
