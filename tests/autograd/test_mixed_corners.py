"""Where torch's graph and ours mix: libraries, autocast, optimizers, hooks, and what cannot be had."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchopt_course import autograd
from torchopt_course.autograd import Variable

from .test_mixed_graphs import Twice, X


@torch.library.custom_op("torchopt_course_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


cube.register_autograd(
    lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@torch.library.custom_op("torchopt_course_tests::doubled_", mutates_args=("x",))
def doubled_(x: Tensor) -> None:
    x.mul_(2)


@pytest.mark.parametrize("inside", [False, True])
def test_operators_of_libraries_have_their_own_derivatives(inside: bool):
    leaves = [X.clone().requires_grad_(), Variable(X.clone())]
    for x in leaves:
        with autograd.record() if inside else contextlib.nullcontext():
            (cube(2 * x) * x).sum().backward()
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad)
    with pytest.raises(NotImplementedError, match="doubled_"):
        doubled_(leaves[1] * 2)
    with pytest.raises(NotImplementedError, match=r"cube.* in a transform"):
        autograd.grad(lambda x: cube(x).sum())(X)


def test_regions_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    boxes, gradients = torch.tensor([[0.0, 0, 0, 6, 6], [0, 2, 2, 5, 7]]).double(), []
    for make in (lambda x: x.requires_grad_(), Variable):
        x = make(torch.linspace(0, 1, 256).double().reshape(1, 4, 8, 8))
        (ops.roi_align(x.square(), boxes, (2, 2)) ** 2).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", ["index_add_", "index_copy_", "float_power_", "addr_", "ldexp_", "mul_"])
def test_a_variable_written_into_a_result_of_torchs(name: str):
    results = []
    for make in (Variable, lambda x: x.requires_grad_()):
        x = torch.tensor([[0.3, 0.5], [0.7, 1.1]], dtype=torch.float64, requires_grad=True)
        y = make(torch.tensor([[1.3, 0.4], [0.6, 0.8]], dtype=torch.float64))
        h = x * 3
        arguments = {"index_add_": (0, torch.tensor([0, 0]), y), "index_copy_": (0, torch.tensor([1, 0]), y)}
        arguments["addr_"] = (y[0], y[1])
        (getattr(h, name)(*arguments.get(name, (y,))) * h).sum().backward()
        results.append((h.detach(), x.grad, y.grad))
    torch.testing.assert_close(*results)


def test_what_is_computed_from_parameters_alone_is_recorded_here():
    p, q = nn.Parameter(torch.tensor([1.0, 2.0])), torch.ones(2)
    with autograd.record():
        loss = F.smooth_l1_loss(p, q) + torch.lerp(p, q, 0.5).sum() + torch.stack([p, q]).norm()
    assert "torch's" not in str(autograd.graph(loss))


def test_variables_outside_of_any_block():
    w, v = torch.tensor([2.0, 3.0], requires_grad=True), Variable([1.0, -1.0])
    y = Twice.apply(v * w.exp()) + F.linear(v, torch.eye(2), w.sin())
    torch.autograd.backward([y.sum(), (v * w).sum()])
    a, b = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([1.0, -1.0], requires_grad=True)
    torch.autograd.backward([(Twice.apply(b * a.exp()) + b + a.sin()).sum(), (a * b).sum()])
    torch.testing.assert_close(w.grad, a.grad)
    torch.testing.assert_close(v.grad, b.grad)


def test_gradients_add_up_with_torchs_own():
    w, v = torch.tensor(2.0, requires_grad=True), Variable(3.0)
    (w * w).backward()
    (w * v).backward()
    assert (w.grad.item(), v.grad.item()) == (7.0, 2.0)


def test_what_cannot_be_had_is_an_error():
    v, w = Variable([1.0, 2.0]), torch.ones(2, requires_grad=True)
    y = v * w.exp()  # w.exp() is torch's
    y.sum().backward()
    with pytest.raises(RuntimeError, match="for the second time"):
        y.sum().backward()
    with pytest.raises(NotImplementedError, match="Twice in a transform"):
        autograd.grad(lambda x: Twice.apply(x).sum())(torch.ones(2))
    with pytest.raises(NotImplementedError, match=r"transform of torch\.func"):
        torch.func.grad(lambda x: (v * x).sum())(torch.ones(2))
    w.register_hook(lambda g: 2 * g)
    with pytest.raises(NotImplementedError, match="hook of a tensor"):
        (v * w * w.exp()).sum().backward()
    with pytest.raises(RuntimeError, match="not used in the graph"):
        torch.autograd.grad((v * v).sum(), torch.ones(1, requires_grad=True))


def test_gradient_descent_by_hand():
    def descend(w: Any) -> list[float]:
        velocity = torch.zeros(2)
        for step in range(4):
            loss = ((w - torch.tensor([1.0, 2.0])) ** 2 * torch.tensor([1.0, 3.0])).sum()
            loss.backward()
            with torch.no_grad():
                velocity.mul_(0.5).add_(w.grad)
                w -= 0.1 * velocity
                w[0] += 0.01
            if step % 2:
                w.grad = None
            else:
                w.grad.zero_()
        w.data = w.data * 2
        w.data.sub_(0.5)
        return w.tolist()

    assert descend(Variable([0.0, 5.0])) == descend(torch.tensor([0.0, 5.0], requires_grad=True))


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
@pytest.mark.parametrize("library", ["torch.optim", "torchopt_course"])
def test_optimizers_take_variables(library: str, name: str):
    import importlib

    w, t = Variable([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)
    mine = getattr(importlib.import_module(library), name)([w], lr=0.1)
    theirs = getattr(torch.optim, name)([t], lr=0.1)
    for _ in range(3):
        for x, optimizer in ((w, mine), (t, theirs)):
            optimizer.zero_grad()
            (x**2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(w.detach(), t.detach())


@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_computes_and_differentiates_as_torch_does(backward_inside: bool):
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 10)),
        *(nn.Unflatten(1, (2, 5)), nn.LSTM(5, 3, batch_first=True)),
    )
    x, y = torch.randn(6, 1, 8, 8), torch.randint(0, 6, (6,))
    results = []
    for block in (lambda net: contextlib.nullcontext(), autograd.record):
        model = copy.deepcopy(net)
        with block(model), torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)[0]
            loss = F.cross_entropy(out.flatten(1) @ torch.eye(6), y)
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()
        results.append((out, loss, model))
    (out_t, loss_t, theirs), (out, loss, mine) = results
    assert (out.dtype, loss.dtype) == (out_t.dtype, loss_t.dtype)
    torch.testing.assert_close(loss.detach(), loss_t.detach(), rtol=1e-2, atol=1e-2)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert p.grad.dtype == q.grad.dtype
        torch.testing.assert_close(p.grad, q.grad, rtol=0.05, atol=0.02 * q.grad.abs().max().item())
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(p, q)


def test_autocast_widens_where_the_result_would_be_wide_anyway():
    """Logits of 16 bits, targets of 32."""
    logits, targets = (
        (torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) * 3).bfloat16(),
        torch.rand(6, 8),
    )
    results = []
    for make in (Variable, lambda x: x.clone().requires_grad_()):
        x = make(logits)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.binary_cross_entropy_with_logits(x, targets)
        loss.backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def test_hooks_of_variables():
    def run(x: Any) -> list[Any]:
        h = x * 2
        h.retain_grad()
        twice = h.register_hook(lambda g: 2 * g)
        x.register_hook(lambda g: g + 1)
        (h * h).sum().backward()
        twice.remove()
        (x * 3).sum().backward()
        return [h.grad.tolist(), x.grad.tolist(), h.is_leaf, x.is_leaf, h.grad_fn is None, x.grad_fn is None]

    assert run(Variable([1.0, -1.0])) == run(torch.tensor([1.0, -1.0], requires_grad=True))


def test_a_function_that_was_taken_before_the_package_was_imported():
    taken = torch._C._FunctionBase.__dict__["apply"].__get__(None, Twice)  # what Twice.apply was then
    net = nn.Linear(3, 1).double()
    with autograd.record(net):
        loss = taken(net(X).mean())  # torch's tensor, computed from a variable
    loss.backward()
    mine = [p.grad for p in net.parameters()]
    net.zero_grad()
    taken(net(X).mean()).backward()
    for g, p in zip(mine, net.parameters(), strict=True):
        torch.testing.assert_close(g, p.grad)
