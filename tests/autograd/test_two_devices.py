"""Programs on a GPU and the CPU at once: what moves between them, and what torch refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd as ag

from .module_gradients import assert_same_gradients
from .on_device import DOUBLE, numbers, on_device, two_devices
from .test_on_cuda import made

pytestmark = [*on_device, pytest.mark.usefixtures("attention_by_formula")]


MOVES: dict[str, Callable[[Any], Any]] = {
    "to": lambda x: x.to("cuda"),
    "to, in a dtype": lambda x: x.to("cuda", torch.float32, non_blocking=True),
    "to a tensor's": lambda x: x.to(torch.zeros(2, device="cuda")),
    "cuda": lambda x: x.cuda(),
    "cuda, by name": lambda x: x.cuda(device="cuda:0", non_blocking=True),
    "cuda, a number": lambda x: x.cuda(0),
    "type": lambda x: x.type("torch.cuda.FloatTensor"),
    "type_as": lambda x: x.type_as(torch.zeros(2, device="cuda")),
    "there and back": lambda x: (x.cuda() * 2).cpu(),
    "there and back, twice": lambda x: (x.to("cuda").sin().cpu() * x).to("cuda").double(),
    "copied into": lambda x: torch.zeros(2, 3, device="cuda", dtype=DOUBLE).copy_(x) * 3,
    "pinned": lambda x: x.pin_memory().to("cuda", non_blocking=True),
    "module": lambda x: nn.Linear(3, 2, dtype=DOUBLE, device="cuda").requires_grad_(False)(x.cuda()),
}


@two_devices
@pytest.mark.parametrize("block", [True, False], ids=["within record", "a variable"])
@pytest.mark.parametrize("name", MOVES)
def test_moves_between_devices(name: str, block: bool):
    start = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(2, 3)
    theirs = start.clone().requires_grad_()
    torch.manual_seed(0)
    other = MOVES[name](theirs)
    other.square().sum().backward()
    mine: Any = start.clone().requires_grad_() if block else ag.Variable(start)
    torch.manual_seed(0)
    if block:
        with ag.record():
            y = MOVES[name](mine)
            z = y.square().sum()
    else:
        y = MOVES[name](mine)
        z = y.square().sum()
    z.backward()
    assert (y.device, y.dtype) == (other.device, other.dtype)
    torch.testing.assert_close(y.detach(), other.detach())
    torch.testing.assert_close(mine.grad, theirs.grad)  # the device among it


@two_devices
def test_a_number_of_the_cpu_next_to_a_tensor_of_the_gpu():
    """Torch takes it, and its gradient is a number of the CPU again."""
    for program in (
        lambda s, x: s * x,
        lambda s, x: s + x,
        lambda s, x: (s.exp() + 1) * x,
        lambda s, x: torch.where(x > 0, s, x) * s,
        lambda s, x: x ** s.abs(),
        lambda s, x: (s * s + s).sin() * x.sum(),
    ):
        leaves = [torch.tensor(0.7, dtype=DOUBLE), numbers(3, 4).abs()]
        theirs = [x.clone().requires_grad_() for x in leaves]
        mine = [ag.Variable(x) for x in leaves]
        program(*theirs).sum().backward()
        program(*mine).sum().backward()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        _, tangent = ag.jvp(
            lambda s, x, f=program: f(s, x).sum(), tuple(leaves), tuple(torch.ones_like(x) for x in leaves)
        )
        slope = sum(q.grad.sum().item() for q in theirs)
        assert tangent.item() == pytest.approx(slope, rel=1e-9)


@two_devices
def test_devices_that_do_not_go_together_are_torchs_error():
    x, y = torch.ones(2, 2, dtype=DOUBLE), torch.ones(2, 2, dtype=DOUBLE, device="cuda")
    for program in (
        torch.add, torch.matmul, torch.atan2, F.mse_loss, F.linear, torch.cdist, F.kl_div,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: F.layer_norm(a, (2,), b[0]),
        lambda a, b: F.cross_entropy(a, b),
        lambda a, b: F.scaled_dot_product_attention(a, b, b),
    ):  # fmt: skip
        for a, b in ((x, y), (y, x)):
            with pytest.raises((RuntimeError, ValueError)) as theirs:
                program(a.clone().requires_grad_(), b)
            with pytest.raises((RuntimeError, ValueError)) as mine:
                program(ag.Variable(a), b)
            assert mine.type is theirs.type
            assert "device" in str(mine.value)
    v = ag.Variable(x)
    with pytest.raises(RuntimeError, match="expected device cpu but got cuda"):
        (v * 2).backward(y)
    (v.sum() * 2).backward(torch.ones((), dtype=DOUBLE, device="cuda"))
    torch.testing.assert_close(v.grad, 2 * x)


@two_devices
def test_a_pinned_batch():
    model, _, labels = made("mlp", torch.float32)
    batch = torch.randn(12, 8).pin_memory()
    assert_same_gradients(
        model, lambda m: F.cross_entropy(m(batch.to("cuda", non_blocking=True)), labels), 1e-4
    )
