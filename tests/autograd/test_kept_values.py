"""What users keep: detached values, gradients, what hooks were given, torch's own tensors."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

from .agreement import Make, assert_as_in_torch


def a_detached_value_becomes_a_leaf(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2
    leaf = h.detach().requires_grad_()
    constant = (h * 3).detach()
    (constant * x + leaf * h).sum().backward()
    return [x.grad, leaf.grad, constant.requires_grad]


def data_becomes_a_leaf(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2
    leaf = h.data
    leaf.requires_grad = True
    (leaf * h).sum().backward()
    return [x.grad, leaf.grad]


def a_retained_gradient_is_nobody_elses(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x + 1
    h.retain_grad()
    (h**2).sum().backward()
    x.grad.zero_()
    return [h.grad, h.retains_grad]


def a_retained_gradient_is_of_the_last_value(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2
    h.retain_grad()
    h.mul_(3)
    (h**2).sum().backward()
    return [h.grad, x.grad]


def what_a_hook_keeps_is_its_own(make: Make) -> list[Any]:
    x, kept = make(1.0, 2.0), []
    x.register_hook(kept.append)
    h = x + 1
    h.register_hook(kept.append)
    (h**2).sum().backward()
    x.grad.zero_()
    return kept


def a_hook_that_changes_the_gradient_in_place(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2

    def triple(g: Any) -> None:
        g.mul_(3)

    h.register_hook(triple)
    (h * h).sum().backward()
    return [x.grad]


def after_accumulation(make: Make) -> list[Any]:
    x, seen = make(1.0, 2.0), []
    handle = x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum().item()))
    (x**2).sum().backward()
    handle.remove()
    (x**2).sum().backward()
    return [x.grad, torch.tensor(seen)]


def a_gradient_can_be_written_to(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0), make(3.0, 4.0)
    (x.sum() + y.expand(3, 2).sum()).backward()
    for v in (x, y):
        v.grad.mul_(2)
        v.grad[0] = 5
    return [x.grad, y.grad]


def gradients_in_a_buffer(make: Make) -> list[Any]:
    x, buffer = make(1.0, 2.0), torch.zeros(4, dtype=torch.float64)
    x.grad = buffer[1:3]
    (x**2).sum().backward()
    return [buffer]


def a_deleted_gradient(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    (x**2).sum().backward()
    del x.grad
    return [x.grad is None]


def a_deep_copy_of_a_leaf(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    (x * 3).sum().backward()
    y = copy.deepcopy(x)
    (y**2).sum().backward()
    return [x.grad, y.grad, y.is_leaf]


def zero_is_not_none(make: Make) -> list[Any]:
    """Values that were overwritten count nothing, which optimizers tell from no gradient."""
    x, y, z = make(1.0, 2.0), make(3.0, 4.0), make(5.0, 6.0)
    h, k, m = x * 2, y * 2, z * 2
    h.fill_(0.5)
    k.copy_(h)
    m.zero_()
    (h + k + m + z).sum().backward()
    return [x.grad, y.grad, z.grad]


def padded_sequences(make: Make) -> list[Any]:
    x, y = make(1.0, 2.0, 3.0), make(4.0)
    pad = nn.utils.rnn.pad_sequence
    h = pad([x, y], True, 0.5) + pad([x, y], batch_first=True, padding_side="left")
    (h**2).sum().backward()
    return [h, x.grad, y.grad]


def dropout_that_does_nothing(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    h = x * 2
    z = h * h
    same = nn.functional.dropout(h, 0.5, training=False, inplace=True) is h
    z.sum().backward()
    return [x.grad, same]


def between_numbers(make: Make) -> list[Any]:
    x = make(1.0, 2.0)
    return [torch.linspace(x[0], x[1], 3), torch.linspace(x[0], x[1], 3).requires_grad]


def a_product_that_torch_differentiates(make: Make) -> list[Any]:
    """The tensor that comes out is torch's, and ends in variables."""
    w, b = make(1.0, 2.0, 3.0), make(0.5, 0.6, 0.7)
    v = torch.ones(3, dtype=torch.float64)
    _, product = torch.autograd.functional.hvp(
        lambda t: (torch.outer(w, w) @ t).sin().sum(), b, v, create_graph=True
    )
    (first,) = torch.autograd.grad(product.sum(), w, retain_graph=True)
    product.sum().backward()
    return [first, w.grad, b.grad]


@pytest.mark.parametrize(("a", "b", "ends"), [
    ((8, 16), (2, 16, 8), [3, 8]), ((2, 8, 16), (2, 16, 8), None), ((2, 8, 16), (16, 8), [3, 8]),
    ((16, 8), (8, 16), [3, 8]),
])  # fmt: skip
def test_products_of_groups(a: tuple[int, ...], b: tuple[int, ...], ends: list[int] | None):
    offs = None if ends is None else torch.tensor(ends, dtype=torch.int32)
    x, y = torch.randn(a), torch.randn(b)
    theirs = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    mine = [Variable(x), Variable(y)]
    for pair in (theirs, mine):
        nn.functional.grouped_mm(*pair, offs=offs).square().sum().backward()
    for v, t in zip(mine, theirs, strict=True):
        torch.testing.assert_close(v.grad, t.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("program", [
    a_detached_value_becomes_a_leaf, data_becomes_a_leaf, a_retained_gradient_is_nobody_elses,
    a_retained_gradient_is_of_the_last_value, what_a_hook_keeps_is_its_own,
    a_hook_that_changes_the_gradient_in_place, after_accumulation, a_gradient_can_be_written_to,
    gradients_in_a_buffer, a_deleted_gradient, a_deep_copy_of_a_leaf, zero_is_not_none, padded_sequences,
    dropout_that_does_nothing, between_numbers, a_product_that_torch_differentiates,
], ids=lambda f: f.__name__)  # fmt: skip
def test_it_is_as_in_torch(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)


def test_torchs_tensors_in_the_middle():
    """Of what torch computed before, each has its whole gradient, whatever else was made of it."""

    def program(v: Any, block: Any) -> list[Tensor]:
        w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
        calls: list[Tensor] = []
        h = w.exp()
        h.register_hook(lambda g: calls.append(g) or g.clamp(-1.0, 1.0))
        k = h.sin()
        with block:
            loss = (v * h).sum() + (h * h * v).sum() + (v * k).sum()
            grads = torch.autograd.grad(loss, [h, k, w, v], retain_graph=True)
            only_h = (v * h).sum() * (h * v).sum()
            before = len(calls)
            only_h.backward()
        return [*grads[1:2], *grads[3:], w.grad, torch.tensor(float(len(calls) - before))]

    data = torch.tensor([3.0, 0.5], dtype=torch.float64)
    expected = program(data.clone().requires_grad_(), contextlib.nullcontext())
    for v, block in (
        (Variable(data.clone()), contextlib.nullcontext()),
        (data.clone().requires_grad_(), ag.record()),
    ):
        for mine, theirs in zip(program(v, block), expected, strict=True):
            torch.testing.assert_close(mine.detach(), theirs.detach())


def test_a_gradient_inside_of_torchs_graph():
    w, v = torch.tensor([1.0, -2.0], requires_grad=True), Variable([3.0, 0.5])
    h = w.exp()
    k = h.sin()
    (g,) = torch.autograd.grad((v * k).sum() + (v * h).sum(), h)
    torch.testing.assert_close(g, v.detach() * (h.cos() + 1).detach())


def test_what_is_not_seen_is_refused():
    x, ones = torch.ones(2, requires_grad=True), torch.ones(2)
    for v in (Variable([1.0, 2.0]), x):
        with forward_ad.dual_level(), ag.record():
            with pytest.raises(NotImplementedError, match=r"use autograd\.jvp"):
                forward_ad.make_dual(v, ones)
            with pytest.raises(NotImplementedError, match="forward_ad"):
                forward_ad.make_dual(ones.clone(), ones) * v
    with ag.record(), pytest.raises(NotImplementedError, match="mul of complex numbers"):
        torch.complex(x, x) * x
    with pytest.raises(NotImplementedError, match="mul of complex numbers"):
        Variable([1.0, 2.0]) * 1j
    with ag.record():  # what is complex from end to end is torch's, and counts
        z = torch.complex(x, x)
        ((z * z).imag.sum() + z.abs().sum() * 0).backward()
    torch.testing.assert_close(x.grad, 4 * x.detach())
