# ruff: noqa: E501, RUF043
"""Variables: errors that say what to do."""

from __future__ import annotations

import copy

import pytest
import torch

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable


def test_a_second_backward_names_the_operation():
    x = Variable(2.0)
    y = torch.sin(x)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through sin for the second time.*retain_graph=True"):
        y.backward()
    z = torch.cos(x)
    z.backward(retain_graph=True)
    z.backward()


def test_a_changed_saved_tensor_is_named_with_its_versions():
    x = Variable(torch.ones(2, 3))
    y = torch.exp(x)
    y.data.add_(1)
    with pytest.raises(
        RuntimeError, match=r"exp needs its result \(float32 \(2, 3\)\).*version 0 .* version 1 now"
    ):
        y.sum().backward()
    w = torch.ones(3)
    z = (x * w).sum()
    w.zero_()
    with pytest.raises(RuntimeError, match="mul needs its argument 'b'"):
        z.backward()
    w = torch.ones(3)
    z = (x + w).sum()
    w.zero_()  # not needed for the derivative
    z.backward()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.backward(), RuntimeError, r"single number, such as a loss; this result has shape \(2,\)"),
        (lambda x: x.backward(torch.ones(3)), RuntimeError, r"gradient has shape \(3,\).*shape \(2,\)"),
        (lambda x: x.sum().backward(2.0), TypeError, "Tensors or Nones, but got float"),
        (lambda x: x.sum().backward(inputs=[]), RuntimeError, "one or more"),
        (lambda x: Variable(torch.arange(3)), RuntimeError, "floating-point.*int64"),
        (lambda x: Variable(torch.ones(2, dtype=torch.cfloat)), TypeError, "must be real"),
        (lambda x: torch.special.airy_ai(x), NotImplementedError,
         r"torch.special.airy_ai.*add it:\n.*\n.*\n.*@primitive\(torch.special.airy_ai, x="),
        (lambda x: x.numpy(), RuntimeError, r"x.detach\(\).numpy"),
        (lambda x: torch.from_dlpack(x), BufferError, r"x.detach\(\)"),
        (lambda x: x.nonsense, AttributeError, "nonsense"),
        (lambda x: copy.deepcopy(x * 2), RuntimeError, "past"),
        (lambda x: setattr(x, "grad", x), RuntimeError, "its own grad"),
        (lambda x: setattr(x, "grad", torch.ones(2).double()), RuntimeError, "float64.*float32"),
        (lambda x: torch.nn.functional.embedding(torch.tensor([0]), x.reshape(2, 1), sparse=True),
         NotImplementedError, "sparse"),
    ],
)  # fmt: skip
def test_errors_are_clear(call, error, message: str):
    with pytest.raises(error, match=f"(?s){message}"):
        call(Variable([1.0, 2.0]))


def test_a_variable_from_a_finished_trace():
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    ag.grad(f)(torch.ones(2))
    with pytest.raises(RuntimeError, match="mul got a variable from a finished trace"):
        kept[0] * 2
    ag.jvp(f, (torch.ones(2),), (torch.ones(2),))
    with pytest.raises(RuntimeError, match="finished trace"):
        torch.sin(kept[1])
    with pytest.raises(RuntimeError, match="use autograd.grad"):
        ag.grad(lambda x: x.sum().backward())(torch.ones(2))
