"""Integers have no gradient: what would write a value that requires one to them is an error, as in torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd
from torchopt_course.autograd import Variable

MASK, INDEX = torch.tensor([True, False, True]), torch.tensor([1])


def set_item(x: Tensor, index: Any, value: Tensor) -> Tensor:
    x[index] = value
    return x


WRITES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fill": torch.fill,
    "aten.fill": torch.ops.aten.fill.Tensor,
    "fill_": Tensor.fill_,
    "fill_ a view": lambda x, v: (x[1:].fill_(v), x)[1],
    "masked_fill": lambda x, v: x.masked_fill(MASK, v),
    "masked_fill_": lambda x, v: x.masked_fill_(MASK, v),
    "index_fill": lambda x, v: torch.index_fill(x, 0, INDEX, v),
    "index_fill_": lambda x, v: x.index_fill_(0, INDEX, v),
    "select_scatter": lambda x, v: torch.select_scatter(x, v, 0, 1),
    "slice_scatter": lambda x, v: torch.slice_scatter(x, v.expand(2), 0, 1),
    "diagonal_scatter": lambda x, v: x.expand(3, 3).clone().diagonal_scatter(v.expand(3)),
    "as_strided_scatter": lambda x, v: torch.as_strided_scatter(x, v.reshape(1), (1,), (1,)),
    "index_put": lambda x, v: torch.index_put(x, (INDEX,), v),
    "scatter": lambda x, v: torch.scatter(x, 0, INDEX, v.reshape(1)),
    "index_add_": lambda x, v: x.index_add_(0, INDEX, v.reshape(1)),
    "masked_scatter": lambda x, v: x.masked_scatter(MASK, v.expand(3)),
    "x[a:b] = v": lambda x, v: set_item(x, slice(0, 2), v),
    "x[...] = v": lambda x, v: set_item(x, ..., v),
    "x[mask] = v": lambda x, v: set_item(x, MASK, v),
    "bernoulli_": lambda x, v: x.bernoulli_(v / 4),
    "gt_": Tensor.gt_,
    "addcmul_": lambda x, v: x.addcmul_(v, v),
    "add_": Tensor.add_,
    "sum": lambda x, v: v.sum(dtype=x.dtype),
    "prod": lambda x, v: torch.prod(v, dtype=x.dtype),
    "cumsum": lambda x, v: torch.cumsum(v.reshape(1), 0, dtype=x.dtype),
}
# What torch makes constants of, without a word.
CONSTANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "to": lambda x, v: v.to(x.dtype),
    "type_as": lambda x, v: v.type_as(x),
    "copy_": lambda x, v: x.copy_(v),
    "x[i] = v": lambda x, v: set_item(x, 1, v),
    "argmax": lambda x, v: v.expand(3).argmax(),
    "gt": torch.gt,
    "logical_and_": Tensor.logical_and_,
    "where of indices": lambda x, v: torch.where(v > x)[0],
    "count_nonzero": lambda x, v: v.expand(3).count_nonzero(),
}


def used(program: Callable[[Tensor, Tensor], Tensor], kind: str, dtype: torch.dtype) -> tuple[str, Any]:
    """What a program makes of a value that requires a gradient, once that is computed with."""
    x, v = torch.zeros(3, dtype=dtype), torch.tensor(2.0)
    v = Variable(v) if kind == "variable" else v.requires_grad_()
    try:
        with autograd.record() if kind == "record" else contextlib.nullcontext():
            return "", program(x, v).sum()
    except RuntimeError as error:
        return str(error)[:30], None


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_a_variable_is_not_written_to_integers(name: str, dtype: torch.dtype):
    truth, _ = used(WRITES[name], "torch", dtype)
    assert truth
    for kind in ("variable", "record"):
        message, _ = used(WRITES[name], kind, dtype)
        assert message, f"{kind}: silent, torch says {truth!r}"
        if truth.startswith("Autograd not support dtype"):
            assert message.startswith("Autograd not support dtype")


@pytest.mark.parametrize("name", CONSTANTS)
def test_what_torch_makes_constants_of(name: str):
    truth = used(CONSTANTS[name], "torch", torch.int64)[1]
    for kind in ("variable", "record"):
        result = used(CONSTANTS[name], kind, torch.int64)[1]
        assert not result.requires_grad
        assert not truth.requires_grad
        torch.testing.assert_close(result, truth)


@pytest.mark.parametrize("name", [name for name in WRITES if not name.startswith(("aten", "index_add"))])
def test_under_no_grad_values_are_written(name: str):
    results = []
    for make in (lambda v: v.requires_grad_(), Variable):
        with torch.no_grad():
            try:
                results.append(WRITES[name](torch.zeros(3, dtype=torch.int64), make(torch.tensor(2.0))))
            except RuntimeError:  # of other dtypes
                results.append(None)
    if name == "bernoulli_":
        return
    assert (results[0] is None) == (results[1] is None)
    if results[0] is not None:
        torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("function", [torch.addcmul, torch.addcdiv])
def test_integers_and_numbers_that_require_a_gradient(function: Callable[..., Tensor]):
    """A number with a fraction makes fractions of integers with dimensions."""
    gradients = []
    for make in (lambda v: v.requires_grad_(), Variable):
        v = make(torch.tensor(2.5, dtype=torch.float64))
        function(torch.arange(3), v, v * v).sum().backward()
        gradients.append(v.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_one_number_is_scattered():
    gradients = []
    for make in (lambda v: v.requires_grad_(), Variable):
        v = make(torch.tensor(2.0))
        (torch.scatter(torch.zeros(3), 0, INDEX, v) ** 2).sum().backward()
        gradients.append(v.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_complex_sum_is_no_constant():
    with pytest.raises(NotImplementedError, match="complex"):
        Variable(torch.ones(3)).sum(dtype=torch.complex64)
