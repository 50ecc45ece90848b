"""All ways to differentiate on a GPU; graphs, memory, streams. ``JUDGE_DEVICE=cpu`` runs most without one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from torchopt_course import autograd as ag
from torchopt_course.testing import assert_gradients_agree

from .module_gradients import assert_same_gradients
from .on_device import DEVICE, DOUBLE, numbers, on_device, two_devices
from .test_on_cuda import made

pytestmark = [*on_device, pytest.mark.usefixtures("attention_by_formula")]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_random_numbers(reentrant: bool):
    model, x, labels = made("mlp", DOUBLE)

    def loss(m: Any) -> Any:
        h = checkpoint(
            lambda a: F.dropout(m[1](m[0](a)), 0.5), x.clone().requires_grad_(), use_reentrant=reentrant
        )
        return F.cross_entropy(m[3](m[2](h)), labels)

    assert_same_gradients(model, loss, 1e-10)


def softly(x: Any, w: Any) -> Any:
    return (torch.softmax(x @ w, -1).log() * torch.tanh(x @ w)).sum() + (x**3).mean()


def test_forward_mode_and_higher_orders():
    x, w, t = numbers(3, 4), numbers(4, 4, seed=5), numbers(3, 4, seed=6)
    _, mine = ag.jvp(lambda a: softly(a, w), (x,), (t,))
    _, theirs = torch.func.jvp(lambda a: softly(a, w), (x,), (t,))
    torch.testing.assert_close(mine, theirs)
    hessian = torch.func.hessian(lambda a: softly(a, w))(x)
    torch.testing.assert_close(ag.hessian(lambda a: softly(a, w))(x), hessian)
    jacobian = torch.func.jacrev(lambda a: torch.tanh(a @ w))(x)
    torch.testing.assert_close(ag.jacrev(lambda a: torch.tanh(a @ w))(x), jacobian)
    torch.testing.assert_close(ag.jacfwd(lambda a: torch.tanh(a @ w))(x), jacobian)
    v = ag.Variable(x)
    (g,) = torch.autograd.grad(softly(v, w), v, create_graph=True)
    (gg,) = torch.autograd.grad((g * t).sum(), v, create_graph=True)
    torch.testing.assert_close(gg.detach(), torch.einsum("abcd,cd->ab", hessian, t))
    gg.square().sum().backward()
    assert v.grad.device == x.device


def test_finite_differences_agree():
    x, w = numbers(3, 4), numbers(4, 4, seed=5)
    slopes = ag.numerical.grad(lambda a: softly(a, w))(x)
    torch.testing.assert_close(slopes, ag.grad(lambda a: softly(a, w))(x), rtol=1e-6, atol=1e-8)
    assert_gradients_agree(softly, x, w)
    assert_gradients_agree(lambda a: F.layer_norm(a, (4,)).exp(), x.float())
    wrong = ag.primitive(x=lambda g, x: g * 3 * x)(_cube)
    with pytest.raises(AssertionError):
        assert_gradients_agree(wrong, x)


def _cube(x: Tensor) -> Tensor:
    return x * x * x


def test_in_place():
    def program(x: Any) -> Any:
        y = x * 1
        y[0] = 2 * y[1]
        y.add_(x).mul_(y.detach().clone()).clamp_(min=-1.5)
        y[:, 1:].sigmoid_()
        y = y * 1
        y.index_add_(0, torch.tensor([0, 0], device=x.device), x[:2].sin())
        y.masked_fill_(x > 1, 0.5)
        return (y * y).sum()

    x = numbers(3, 4)
    theirs, mine = x.clone().requires_grad_(), ag.Variable(x)
    program(theirs).backward()
    program(mine).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    y = mine.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match="in place"):
        z.backward()


def test_graphs_show_values():
    x = ag.Variable(torch.tensor([1.5, -2.0], device=DEVICE))
    loss = F.softplus(x * 3).sum()
    drawn = ag.graph(loss)
    loss.backward()
    text = drawn.text()
    assert "softplus" in text
    assert "softplus" in drawn.svg(graphviz=False)
    assert "softplus" in drawn.dot()
    written = ag.trace(lambda a, b: a * b + torch.sin(a), torch.tensor(2.0, device=DEVICE), 3.0)
    assert "sin" in str(written)


@two_devices
def test_memory_does_not_grow():
    model, x, labels = made("cnn", torch.float32)
    used = []
    for _ in range(4):
        model.zero_grad()
        with ag.record(model):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        del loss
        used.append(torch.cuda.memory_allocated())
    assert used[1] == used[-1]


@two_devices
def test_on_a_stream_of_its_own():
    model, x, labels = made("cnn", DOUBLE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert_same_gradients(model, lambda m: F.cross_entropy(m(x), labels), 1e-10)


@two_devices
def test_whole_step_in_a_cuda_graph():
    """Recorded once and replayed, as in torch's own notes on CUDA graphs."""
    model, x, labels = made("cnn", torch.float32)
    model.eval()
    twin = copy.deepcopy(model)

    def gradients() -> None:
        with ag.record(model):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            gradients()
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        gradients()
    x.copy_(numbers(12, 1, 28, 28, dtype=torch.float32, seed=9))
    captured.replay()
    F.cross_entropy(twin(x), labels).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)
