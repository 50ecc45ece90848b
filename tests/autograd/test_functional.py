"""``torch.autograd.functional``, ``gradcheck`` and batched gradients of variables, beside torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import functional as AF
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

T = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)


def sines(x: Any) -> Any:
    return (x**3).sin()


def both(x: Any, y: Any) -> Any:
    return (x * y).sum() * x + y**2


def convolved(x: Any, y: Any) -> Any:
    return F.conv1d(x.view(1, 1, 3), y.view(1, 1, 3), padding=1).relu().log_softmax(-1).view(3)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "jacobian": lambda x, y: AF.jacobian(both, (x, y), create_graph=True),
    "jacobian vectorize": lambda x, y: AF.jacobian(both, (x, y), vectorize=True),
    "jacobian vectorize create_graph": lambda x, y: AF.jacobian(both, (x, y), True, vectorize=True),
    "jacobian of a closure": lambda x, y: AF.jacobian(lambda z: sines(z) * y, x.detach(), vectorize=True),
    "hessian": lambda x, y: AF.hessian(lambda x: sines(x).sum(), x, create_graph=True),
    "hessian vectorize": lambda x, y: AF.hessian(lambda x, y: both(x, y).sum(), (x, y), vectorize=True),
    "jvp": lambda x, y: AF.jvp(both, (x, y), (T, T), create_graph=True),
    "vjp strict": lambda x, y: AF.vjp(both, (x, y), T, strict=True),
    "vjp of a constant": lambda x, y: AF.vjp(lambda z: y * 2, x, T, strict=True),
    "hvp": lambda x, y: AF.hvp(lambda x: sines(x).sum(), x, y, create_graph=True),
    "vhp": lambda x, y: AF.vhp(lambda x: sines(x).sum(), x, T),
    "gradcheck": lambda x, y: torch.autograd.gradcheck(both, (x, y)),
    "gradcheck of a constant": lambda x, y: torch.autograd.gradcheck(both, (x, y.detach())),
    "gradcheck of a wrong one": lambda x, y: torch.autograd.gradcheck(lambda x: x.detach() * x, x),
    "gradgradcheck": lambda x, y: torch.autograd.gradgradcheck(sines, x, fast_mode=True),
    "batched": lambda x, y: torch.autograd.grad(convolved(x, y), [x, y], EYE, is_grads_batched=True),
    "batched create_graph": lambda x, y: torch.autograd.grad(
        [sines(x), x * y], [x, y], [EYE, 2 * EYE], create_graph=True, is_grads_batched=True
    ),
    "batched unused": lambda x, y: torch.autograd.grad(
        sines(x), [x, y], EYE, is_grads_batched=True, allow_unused=True
    ),
    "batched materialized": lambda x, y: torch.autograd.grad(
        sines(x), [x, y], EYE, is_grads_batched=True, materialize_grads=True
    ),
}  # fmt: skip


def outcome(call: Callable[[Any, Any], Any], kind: str) -> list[Any]:
    make = Variable if kind == "variable" else lambda x: x.requires_grad_()
    x, y = (make(torch.tensor(v, dtype=torch.float64)) for v in ([0.5, -1.2, 0.7], [1.5, 0.3, -0.4]))
    try:
        with ag.record() if kind == "record" else torch.enable_grad():
            results = pytree.tree_leaves(call(x, y))
    except RuntimeError:
        return ["error"]
    if any(isinstance(r, Tensor) and r.requires_grad for r in results):
        sum((r**2).sum() for r in results if r.requires_grad).backward()
    return [*results, x.grad, y.grad]


@pytest.mark.filterwarnings("ignore:None of the inputs")
@pytest.mark.parametrize("kind", ["variable", "record"])
@pytest.mark.parametrize("name", list(CALLS))
def test_they_are_torchs(name: str, kind: str):
    mine, truth = outcome(CALLS[name], kind), outcome(CALLS[name], "torch")
    for a, b in zip(mine, truth, strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a.detach(), b.detach())
            assert a.requires_grad == b.requires_grad
        else:
            assert a == b


def test_a_batch_of_other_sizes_is_refused():
    x = Variable(T)
    with pytest.raises(RuntimeError, match=r"is_grads_batched=True: as many gradients.*\{2, 3\}"):
        torch.autograd.grad([x * 2, x * 3], x, [EYE, EYE[:2]], is_grads_batched=True)


def test_a_view_of_what_was_detached_in_place_keeps_its_past():
    gradients = []
    for make in (lambda x: x.requires_grad_(), Variable):
        x = make(T.clone())
        h = x * 2
        row = h[:2]
        h.detach_()
        (row * row).sum().backward()
        gradients.append(x.grad)
        assert not h.requires_grad
        assert row.requires_grad
    torch.testing.assert_close(gradients[1], gradients[0])
    row = (h := x * 2)[:2]
    h.detach_().mul_(3)
    with pytest.raises(RuntimeError, match="detached in place, and written to"):
        row * 2
    row = (h := x * 2)[:2]
    h.detach_()
    with pytest.raises(RuntimeError, match="a view of a leaf"):  # as in torch
        row.mul_(2)
    leaf = T.clone().requires_grad_()
    with ag.record():
        assert not leaf.detach_().requires_grad


def test_nested_tensors_are_refused_by_name():
    layer, nested = torch.nn.Linear(3, 2), torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])
    with (
        ag.record(layer),
        pytest.raises(NotImplementedError, match="linear of a variable and a nested tensor"),
    ):
        layer(nested)
    with ag.record(layer), pytest.raises(NotImplementedError, match="a nested tensor cannot require one"):
        nested.requires_grad_() * layer.weight[0, 0]
    with pytest.raises(NotImplementedError, match="stft: as_strided"):  # of one with gaps in memory
        torch.stft(Variable(torch.randn(21)[1::2]), 4, center=False, return_complex=True)
