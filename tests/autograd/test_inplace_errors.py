"""In-place operations: what torch refuses is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from torchopt_course.autograd import Variable

from .test_inplace import DATA


def saved_value_changed(x: Any) -> Any:
    h = x * 2
    z = h * h
    h += 1
    return z


def saved_result_changed(x: Any) -> Any:
    z = (x * 2).exp()
    z[0] += 1
    return z


def saved_by_a_view(x: Any) -> Any:
    h = x * 2
    z = h[0] * h[0]
    h.T.mul_(2)
    return z


def multiplied_by_itself(x: Any) -> Any:
    y = x * 1
    return y.mul_(y)


def leaf(x: Any) -> Any:
    x += 1
    return x


def view_of_a_leaf(x: Any) -> Any:
    x[0].mul_(2)
    return x


def grown(x: Any) -> Any:
    h = x[0] * 1
    return h.add_(x)


def expanded(x: Any) -> Any:
    return x[:, :1].sin().expand(2, 3).add_(1)


def too_large(x: Any) -> Any:
    h = x * 1
    h[0] = x
    return h


def into_integers(x: Any) -> Any:
    return torch.zeros(2, 3, dtype=torch.long).add_(x)


def detached_view(x: Any) -> Any:
    return (x * 1)[0].detach_()


def out_argument(x: Any) -> Any:
    return torch.add(x, x, out=torch.zeros(2, 3, dtype=torch.float64))


def gradient_of_another_shape(x: Any) -> Any:
    x.grad = torch.zeros(3, dtype=torch.float64)
    return x


def switched_off_in_the_middle(x: Any) -> Any:
    return (x * 2).requires_grad_(False)


@pytest.mark.parametrize("program", [
    saved_value_changed, saved_result_changed, saved_by_a_view, multiplied_by_itself, leaf, view_of_a_leaf,
    grown, expanded, too_large, into_integers, detached_view, out_argument, gradient_of_another_shape,
    switched_off_in_the_middle,
], ids=lambda f: f.__name__)  # fmt: skip
def test_what_torch_refuses_is_refused(program: Callable[[Any], Any]):
    for x in (
        torch.tensor(DATA, dtype=torch.float64, requires_grad=True),
        Variable(torch.tensor(DATA).double()),
    ):
        before = x.tolist()
        with pytest.raises(RuntimeError):
            program(x).sum().backward()
        assert x.tolist() == before  # nothing is half done


def test_a_plain_tensor_whose_views_could_not_follow_is_refused():
    x, out = Variable([1.0, 2.0]), torch.zeros(2)
    row = out[:1]
    with pytest.raises(RuntimeError, match=r"add_ writes a variable into a plain tensor \(2,\) whose memory"):
        out.add_(x)
    assert row.tolist() == [0.0]
    del row
    assert isinstance(out.add_(x), Variable)
    view = (y := x * 1)[:1]
    y.unsqueeze_(0)
    with pytest.raises(RuntimeError, match="got another shape in place"):
        _ = view * 2


def test_logits_of_a_loss_may_change_until_a_second_derivative_needs_them():
    gradients = []
    for make in (lambda t: t.requires_grad_(), Variable):
        x, target = make(torch.tensor(DATA).double()), torch.tensor([0, 2])
        h = x * 2
        loss = F.cross_entropy(h, target) + F.cross_entropy(h[0], target[1])
        h.mul_(3)
        loss.backward(retain_graph=True)
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    with pytest.raises(RuntimeError, match=r"cross_entropy needs its argument 'x'.*changed in place"):
        loss.backward(create_graph=True)
