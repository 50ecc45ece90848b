"""In-place operations: values, aliases, views and gradients as in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

DATA = [[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]]


def alias(x: Any) -> Any:
    h = x * 2
    keep = h
    h += 1
    return keep * h


def view_of_base(x: Any) -> Any:
    h = x * 2
    row = h[0]
    row *= 10
    return h * x


def base_of_view(x: Any) -> Any:
    h = x * 2
    row, column = h[1], h.T[0]
    h.mul_(x)
    return row.sum() * column + h.sum()


def view_of_view(x: Any) -> Any:
    h = x.sin()
    flat = h.view(-1)
    flat[1:4].view(3, 1)[2].add_(x[0, 0])
    flat.narrow(0, 0, 2).exp_()
    return h * flat[0]


def siblings(x: Any) -> Any:
    h = x * 1
    a, b = h[:, :2], h[:, 1:]
    a.mul_(3)
    b.copy_(a + x[:, 1:])
    return a.sum() + (b * b).sum() + h.prod()


def argument(x: Any) -> Any:
    def add_position(h: Any) -> None:
        h += 5

    h = x * 2
    add_position(h)
    return h * h


def into_a_plain_tensor(x: Any) -> Any:
    out = torch.zeros(4, 3, dtype=torch.float64)
    out[0] = x[0]
    out[1:3] = x * x
    out[:, 1] += x[0, 0]
    out[-1, 2] = 7.0
    return out * out.sum()


def a_view_of_a_plain_tensor_kept(x: Any) -> Any:
    out = torch.ones(2, 3, dtype=torch.float64)
    row = out[1]
    row.mul_(x[0])
    return row.sum() * out


def by_strides(x: Any) -> Any:
    h = x * 1
    h.as_strided((2,), (3,)).mul_(5)
    h[1].as_strided((2, 2), (1, 1), 0).sum().add_(0)  # overlaps itself, reads only
    return h * x + h.T.as_strided((2, 2), (1, 1), 1).sum()


def rows_in_a_loop(x: Any) -> Any:
    out = torch.empty(3, 3, dtype=torch.float64)
    state = x[0]
    for t in range(3):
        state = torch.tanh(state * x[1])
        out[t] = state
    return out * out[2]


def advanced(x: Any) -> Any:
    h = x * 1
    h[h > 0] = 0.5
    h[torch.tensor([1, 0]), torch.tensor([2, 2])] = x[:, 0] * 3
    return h * x


def filled(x: Any) -> Any:
    h = x * 2
    h[0].zero_()
    h[1].fill_(x[0, 0])
    return h * x


def scattered(x: Any) -> Any:
    out = torch.zeros(3, dtype=torch.float64)
    out.scatter_add_(0, torch.tensor([0, 2, 2]), x[0])
    return out * x[1]


def activations(x: Any) -> Any:
    h = x * 2
    F.relu(h, inplace=True)
    g = x * 3
    kept = F.leaky_relu(g, 0.2, inplace=True)
    return h * g + kept


def shape_changed(x: Any) -> Any:
    h = x * 2
    h.unsqueeze_(0).transpose_(1, 2)
    h.squeeze_(0).t_()
    h.mul_(x)
    return h


def detached(x: Any) -> Any:
    h = (x * 2).detach_()
    return h * x


def values_replaced(x: Any) -> Any:
    h = x * 1
    h.data = h.data * 5
    h[0] += 1
    return h * x


def half_type(x: Any) -> Any:
    h = x.float() * 2
    h.mul_(x)  # float64 into float32
    return h.double() * x


PROGRAMS = [
    alias, view_of_base, base_of_view, view_of_view, siblings, argument, into_a_plain_tensor,
    a_view_of_a_plain_tensor_kept, by_strides, rows_in_a_loop, advanced, filled, scattered, activations,
    shape_changed, detached, values_replaced, half_type,
]  # fmt: skip


def seed(y: Any) -> Tensor:
    return torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_programs_are_as_in_torch(program: Callable[[Any], Any]):
    t = torch.tensor(DATA, dtype=torch.float64, requires_grad=True)
    expected = program(t)
    (g,) = torch.autograd.grad(expected, t, seed(expected), create_graph=True)
    second = torch.autograd.grad(g.sum(), t, materialize_grads=True)[0] if g.requires_grad else g * 0

    x = Variable(t.detach())
    y = program(x)
    torch.testing.assert_close(y.detach(), expected.detach())
    y.backward(seed(y), retain_graph=True)
    torch.testing.assert_close(x.grad, g.detach())

    with ag.record():  # from a plain tensor that requires a gradient
        leaf = t.detach().requires_grad_()
        program(leaf).backward(seed(expected))
    torch.testing.assert_close(leaf.grad, g.detach())
    if program is values_replaced:
        return  # transforms have values that they hold, but torch's do not take x.data either

    f = lambda x: (program(x) * seed(expected)).sum()  # noqa: E731
    torch.testing.assert_close(ag.grad(f)(t.detach()), g.detach())
    torch.testing.assert_close(ag.grad(lambda x: ag.grad(f)(x).sum())(t.detach()), second.detach())
    _, slope = ag.jvp(f, (t.detach(),), (torch.ones_like(t.detach()),))
    torch.testing.assert_close(slope, g.detach().sum())
    _, curve = ag.jvp(ag.grad(f), (t.detach(),), (torch.ones_like(t.detach()),))
    torch.testing.assert_close(curve.sum(), second.detach().sum())


def test_values_alone_change_under_no_grad():
    x = Variable([1.0, 2.0])
    h = x * 2
    plain, view = h.detach(), h[:1]
    with torch.no_grad():
        h.mul_(3)
        view[0] = 7.0
        x[1] = 5.0
        x.clamp_(max=4.0)
    assert (h.tolist(), plain.tolist(), x.tolist()) == ([7.0, 12.0], [7.0, 12.0], [1.0, 4.0])
    h.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
