"""Matrix products, which all are sums of products: linear in each factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import BadArguments, means
from ..traced import Value
from .table import MULTILINEAR, primitive


def _matmul_left(g: Value, b: Value, a_shape: torch.Size) -> Value:
    """C = A B: the gradient of A is G Bᵀ. A vector on the right is a column, on the left a row."""
    if len(b.shape) == 1:
        return g.unsqueeze(-1) * b
    if len(a_shape) == 1:
        return (g.unsqueeze(-2) @ b.transpose(-2, -1)).squeeze(-2)
    return g @ b.transpose(-2, -1)


def _matmul_right(g: Value, a: Value, b_shape: torch.Size) -> Value:
    """C = A B: the gradient of B is Aᵀ G."""
    if len(a.shape) == 1:
        return g * a if len(b_shape) == 1 else a.unsqueeze(-1) * g.unsqueeze(-2)
    if len(b_shape) == 1:
        return (a.transpose(-2, -1) @ g.unsqueeze(-1)).squeeze(-1)
    if len(b_shape) == 2:  # one B for the whole batch: a single product does its sum as well
        return _rows(a).transpose(0, 1) @ _rows(g)
    return a.transpose(-2, -1) @ g


def _rows(x: Value) -> Value:
    return x if len(x.shape) == 2 else x.flatten(0, -2) if len(x.shape) > 2 else x.unsqueeze(0)


@primitive("matmul", "__matmul__", a=_matmul_left, b=_matmul_right, jvp=MULTILINEAR)
def matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def _product_of_matrices(name: str) -> None:
    @means(name)  # torch is asked whether these are matrices
    def product(input: Value, other: Value) -> Value:
        return matmul(input, other)


for _name in ("mm", "bmm", "mv"):
    _product_of_matrices(_name)


@means(torch.sparse.mm)
def _sparse_product(mat1: Value, mat2: Value, reduce: str = "sum") -> Value:
    """Of a constant, such as a graph's adjacency matrix, and a variable."""
    if reduce != "sum":
        raise BadArguments(f"sparse.mm(reduce={reduce!r})")
    return matmul(mat1, mat2)


@means(torch.sparse.addmm)
def _sparse_product_and_sum(
    mat: Value, mat1: Value, mat2: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    return beta * mat + alpha * matmul(mat1, mat2)


def _linear_jvp(
    input: Value, weight: Value, bias: Value, input_dot: Value, weight_dot: Value, bias_dot: Value
) -> Value:
    change = F.linear(input_dot, weight) + F.linear(input, weight_dot)
    return change if bias is None else change + bias_dot


def _linear_weight(g: Value, input: Value) -> Value:
    if len(g.shape) < len(input.shape):  # a single output: the weight is a vector
        return _rows(input * g.unsqueeze(-1)).sum(0)
    return torch.mm(_rows(g).t(), _rows(input))


@primitive(
    "linear",
    input=lambda g, weight: g @ weight if len(weight.shape) == 2 else g.unsqueeze(-1) * weight,
    weight=_linear_weight,
    bias=lambda g, bias_shape: g.sum(0) if len(g.shape) == 2 and len(bias_shape) == 1 else g,
    jvp=_linear_jvp,
)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b"""
    return F.linear(input, weight, bias)


def _einsum_vjp(
    g: Value, wanted: Sequence[bool], terms: Sequence[str], result: str, *factors: Value
) -> list[Value]:
    """The gradient of one factor is the einsum of g with all the others."""
    gradients: list[Value] = [None, None]
    for i, term in enumerate(terms):
        others = [j for j in range(len(terms)) if j != i]
        equation = ",".join([result, *[terms[j] for j in others]]) + "->" + term
        gradients.append(torch.einsum(equation, g, *[factors[j] for j in others]) if wanted[2 + i] else None)
    return gradients


@primitive(vjp=_einsum_vjp, jvp=MULTILINEAR)
def contract(terms: Sequence[str], result: str, *factors: Tensor) -> Tensor:
    """einsum where no index is special: each is in the result or another factor, none twice in one."""
    return torch.einsum(",".join(terms) + "->" + result, *factors)


# -- the same as torch calls them ----------------------------------------------------------------------------


@means(torch.einsum)
def _einsum(equation: Any, *operands: Any) -> Value:
    """Brings any einsum into the form of `contract`: no '...', diagonals taken, single indices summed."""
    if not isinstance(equation, str):
        raise NotImplementedError("einsum with lists of indices; write the equation as a string")
    factors = (
        list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    )
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(factors):
        raise ValueError(f"einsum: the equation {equation!r} is for {len(terms)} tensors, not {len(factors)}")
    unused = iter(sorted(set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") - set(equation)))
    spare = [next(unused) for _ in range(max(len(x.shape) for x in factors))] if "..." in left else []
    for i, (term, x) in enumerate(zip(terms, factors, strict=True)):
        extra = len(x.shape) - len(term.replace("...", ""))
        terms[i] = term.replace("...", "".join(spare[len(spare) - extra :]))
        if len(terms[i]) != len(x.shape):
            raise ValueError(f"einsum: {term!r} in {equation!r} does not fit the shape {tuple(x.shape)}")
    batch = "".join(s for s in spare if any(s in term for term in terms))
    letters = "".join(terms)
    once = "".join(c for c in sorted(set(letters)) if letters.count(c) == 1 and c not in batch)
    result = result.replace("...", batch) if arrow else batch + once

    for i, term in enumerate(terms):
        for index in sorted({c for c in term if term.count(c) > 1}):
            while term.count(index) > 1:
                first, second = term.index(index), term.rindex(index)
                factors[i] = torch.diagonal(factors[i], 0, first, second)
                term = term.replace(index, "") + index if term.count(index) == 2 else (
                    term[:first] + term[first + 1 : second] + term[second + 1 :] + index
                )  # fmt: skip
        elsewhere = result + "".join(terms[:i] + terms[i + 1 :])
        alone = [k for k, c in enumerate(term) if c not in elsewhere]
        if alone:
            factors[i] = factors[i].sum(alone)
        terms[i] = "".join(c for k, c in enumerate(term) if k not in alone)
    return contract(tuple(terms), result, *factors)


@primitive(
    torch.linalg.cross,
    a=lambda g, b, dim: torch.linalg.cross(b, g, dim=dim),
    b=lambda g, a, dim: torch.linalg.cross(g, a, dim=dim),
    jvp=MULTILINEAR,
)
def cross(a: Tensor, b: Tensor, dim: int = -1) -> Tensor:
    return torch.linalg.cross(a, b, dim=dim)  # type: ignore[no-any-return]


@primitive(
    input=lambda g, beta: _scaled(beta, g),
    a=lambda g, b, alpha: _scaled(alpha, g @ b),
    b=lambda g, a, alpha: _scaled(alpha, g.t() @ a),
    jvp=lambda input_dot, a_dot, b_dot, a, b, beta, alpha: (
        _scaled(beta, input_dot) + _scaled(alpha, torch.outer(a_dot, b) + torch.outer(a, b_dot))
    ),
)
def addr(input: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
    return torch.addr(input, a, b, beta=beta, alpha=alpha)


@means("addr")
def _addr(input: Value, vec1: Value, vec2: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    return addr(input, vec1, vec2, beta, alpha)


@means("outer", "ger")
def _outer(a: Value, b: Value) -> Value:
    return a.unsqueeze(-1) * b


@means(torch.dot, Tensor.dot, "inner", "vdot")
def _inner(a: Value, b: Value) -> Value:
    if not a.shape or not b.shape:
        return a * b
    if len(b.shape) > 2:  # each row of a with each of b; a matmul would pair stacks of them
        return torch.tensordot(a, b, dims=([-1], [-1]))
    return torch.matmul(a, b.mT if len(b.shape) > 1 else b)


@means("__rmatmul__")
def _rmatmul(b: Value, a: Value) -> Value:
    return matmul(a, b)


def _scaled(factor: float, x: Value) -> Value:
    return x if factor == 1 else factor * x


def _sum_with_product(name: str) -> None:
    """β input + α a b, added up by torch's kernel, which rounds half precision once."""
    function = getattr(torch, name)

    def product(a: Value, b: Value) -> Value:
        each = torch.matmul(a, b)
        return each.sum(0) if name == "addbmm" else each

    def forward(input: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
        return function(input, a, b, beta=beta, alpha=alpha)  # type: ignore[no-any-return]

    forward.__name__ = name
    summed = primitive(
        input=lambda g, beta: _scaled(beta, g),
        a=lambda g, b, alpha, a_shape: _scaled(alpha, _matmul_left(g, b, a_shape)),
        b=lambda g, a, alpha, b_shape: _scaled(alpha, _matmul_right(g, a, b_shape)),
        jvp=lambda input_dot, a_dot, b_dot, a, b, beta, alpha: (
            _scaled(beta, input_dot) + _scaled(alpha, product(a_dot, b) + product(a, b_dot))
        ),
    )(forward)

    @means(name)
    def as_torch_calls_it(input: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
        return summed(input, a, b, beta, alpha)


for _name in ("addmm", "addmv", "baddbmm", "addbmm"):
    _sum_with_product(_name)


@means("bilinear")
def _bilinear(x: Value, y: Value, weight: Value, bias: Value = None) -> Value:
    result = torch.einsum("...i,kij,...j->...k", x, weight, y)
    return result if bias is None else result + bias


@means("_grouped_mm", "grouped_mm")
def _grouped_mm(
    mat_a: Value, mat_b: Value, offs: Tensor | None = None, bias: Value = None, out_dtype: Any = None
) -> Value:
    """A product for each group, as of the experts in a mixture: group i ends before row or column offs[i]."""
    if offs is None:
        products = [mat_a @ mat_b]
    else:
        ends = offs.tolist()
        groups = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        if mat_a.dim() == 2 and mat_b.dim() == 2:  # groups of what is summed over
            products = [torch.stack([mat_a[:, group] @ mat_b[group] for group in groups])]
        elif mat_a.dim() == 2:
            products = [mat_a[group] @ b for group, b in zip(groups, mat_b, strict=True)]
        else:
            products = [a @ mat_b[:, group] for group, a in zip(groups, mat_a, strict=True)]
    product = products[0] if len(products) == 1 else torch.cat(products, 0 if mat_a.dim() == 2 else -1)
    product = product if bias is None else product + bias
    return product if out_dtype is None else product.to(out_dtype)
