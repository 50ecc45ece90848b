"""Rules that make a number of each row or column of a tensor: right by torch, refused by kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import Adam, ElementwiseOptimizer, TensorOptimizer
from torchopt_course import xp as our_xp
from torchopt_course.transforms import Transform, clip_global_norm

from .formulas import formulas, rule_of
from .reducing import normal, optimizer_of

ENGINES: dict[str, dict[str, Any]] = {
    "foreach engine": {"foreach": True},
    "eager engine": {"fused": False},
    "eager engine: 7 parameters, 40 elements, because User.rule makes a number of each": {},
}
# Two rows, one row, one number, a convolution's kernel, and empty ones of each kind.
SHAPES = [(2, 3), (5,), (), (3, 2, 2, 2), (0,), (4, 0), (1, 4)]


def flat(x: Tensor) -> Tensor:
    """A tensor as a matrix of its rows."""
    return x.reshape(x.shape[0], -1) if x.dim() > 1 else x.reshape(1, -1)


def of_lines(line: str, reduce: Callable[..., Tensor], x: Tensor) -> Tensor:
    """A reduction of each row, or of what differs in the first index alone; as large as the tensor."""
    lines = flat(x) if line == "row" else flat(x).T
    if not x.numel():
        return torch.zeros_like(x)
    numbers = torch.stack([reduce(each) for each in lines]).to(x.dtype)
    wide = numbers.unsqueeze(1).expand(lines.shape)
    return (wide if line == "row" else wide.T).reshape(x.shape)


REDUCTIONS: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor]]] = {
    "sum": (lambda x, **of: xp.sum(x, **of), lambda x: x.sum()),
    "x.mean": (lambda x, **of: x.mean(**of), lambda x: x.sum() / len(x)),
    "norm": (lambda x, **of: xp.norm(x, **of), lambda x: (x * x).sum().sqrt()),
    "norm of order 1": (lambda x, **of: xp.norm(x, 1, **of), lambda x: x.abs().sum()),
    "norm of order inf": (lambda x, **of: xp.norm(x, p=float("inf"), **of), lambda x: x.abs().sort()[0][-1]),
    "max": (lambda x, **of: xp.max(x, **of), lambda x: x.sort()[0][-1]),
    "amin": (lambda x, **of: x.amin(**of), lambda x: x.sort()[0][0]),
    "any": (lambda x, **of: xp.any(x > 1, **of), lambda x: (x > 1).sum() > 0),
    "all": (lambda x, **of: xp.all(x > -1, **of), lambda x: (x > -1).sum() == len(x)),
    "sum of truths": (lambda x, **of: xp.sum(x > 0, **of), lambda x: (x > 0).sum()),
    "count_nonzero": (lambda x, **of: xp.count_nonzero(xp.sign(x) + 1, **of), lambda x: (x >= 0).sum()),
    "rms": (lambda x, **of: our_xp.rms(x, **of), lambda x: (x * x).mean().sqrt()),
    "dot": (lambda x, **of: our_xp.dot(x, x + 1, **of), lambda x: (x * (x + 1)).sum()),
}


def stepped(rule: Callable[..., Any], states: tuple[str, ...], engine: str, **of: Any) -> Any:
    params = [Parameter(normal(shape, i, **of)) for i, shape in enumerate(SHAPES)]
    optimizer = optimizer_of(rule, params, states, **ENGINES[engine])
    for step in range(2):
        for i, param in enumerate(params):
            param.grad = normal(tuple(param.shape), 10 + i + step, **of)
        optimizer.step()
    assert optimizer.engine_report().startswith(engine), optimizer.engine_report()
    return params, optimizer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("line", ["row", "column"])
def test_each_reduction_is_that_of_each_row_or_column(engine: str, line: str) -> None:
    """One rule that keeps each of them as a state, which is as large as the parameter."""
    names = tuple(f"r{i}" for i in range(len(REDUCTIONS)))
    new = ", ".join(f"0 * {name} + of_{name}(g, over={line!r})" for name in names)
    functions = {f"of_{name}": said for name, (said, _) in zip(names, REDUCTIONS.values(), strict=True)}
    rule = eval(f"lambda p, g, {', '.join(names)}, lr: (p - lr * g, {new})", functions)
    params, optimizer = stepped(rule, names, engine)
    for param in params:
        for name, (label, (_, reduce)) in zip(names, REDUCTIONS.items(), strict=True):
            expected = of_lines(line, reduce, param.grad)
            torch.testing.assert_close(
                optimizer.state[param][name], expected, rtol=1e-12, atol=1e-13, msg=label
            )


class _Wide:
    """torch, but that a reduction is as large as its tensor."""

    def __getattr__(self, name: str) -> Any:
        plain = {"max": torch.amax, "norm": torch.linalg.vector_norm}.get(name, getattr(torch, name))
        if name not in ("sum", "mean", "max", "norm"):
            return plain

        def wide(x: Tensor, over: str = "tensor") -> Tensor:
            return torch.zeros_like(x) + plain(x) if over == "tensor" else of_lines(over, plain, x)

        return wide


_OVER = (', over="row"', ', over="column"', "")
_BY_LOT = tuple(f"xp.{n}({{}}{over})" for n in ("sum", "mean", "norm", "max") for over in _OVER)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(formulas(_BY_LOT))
def test_formulas_by_lot(formula: tuple[str, str]) -> None:
    """As torch computes them, if numbers are made as large as their tensor first."""

    rule = rule_of(formula)
    by_hand = eval(f"lambda p, g, m, lr: ({formula[0]}, {formula[1]})", {"xp": _Wide()})
    shapes = [shape for shape in SHAPES if 0 not in shape]
    expected = []
    for i, shape in enumerate(shapes):
        p, m = normal(shape, i), torch.zeros(shape, dtype=torch.float64)
        for step in range(2):
            p, m = by_hand(p, normal(shape, 10 + i + step), m, 0.25)
        expected += [p, m]
    for options in ENGINES.values():
        params = [Parameter(normal(shape, i)) for i, shape in enumerate(shapes)]
        optimizer = optimizer_of(rule, params, ("m",), **options)
        for step in range(2):
            for i, param in enumerate(params):
                param.grad = normal(shapes[i], 10 + i + step)
            optimizer.step()
        mine = [value for param in params for value in (param.detach(), optimizer.state[param]["m"])]
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_few_bits(dtype: torch.dtype) -> None:
    """A mean over a row of 4096 numbers of 16 bits is no sum of 16 bits."""
    param = Parameter(torch.zeros(2, 4096, dtype=dtype))
    param.grad = torch.full_like(param, 0.25)
    optimizer_of(lambda p, g, lr: 0 * p + xp.sum(g, over="row"), [param]).step()
    assert param.unique().tolist() == [1024.0]


# -- in company --------------------------------------------------------------------------------------------


class centralized(Transform):
    """Gradient centralization, in words."""

    @staticmethod
    def before(p: Any, g: Any) -> Any:
        return g - xp.mean(g, over="row")


@pytest.mark.parametrize("options", ENGINES.values())
def test_in_a_transform_and_with_numbers_of_all_tensors(options: dict[str, Any]) -> None:
    shapes = [(3, 4), (2, 3, 2)]
    ours, torchs = ([Parameter(normal(shape, i)) for i, shape in enumerate(shapes)] for _ in range(2))
    mine = Adam(ours, lr=0.1, transforms=[centralized(), clip_global_norm(0.5)], **options)
    theirs = torch.optim.Adam(torchs, lr=0.1)
    for step in range(3):
        for i, (a, b) in enumerate(zip(ours, torchs, strict=True)):
            a.grad = normal(shapes[i], 20 + step + i)
            b.grad = a.grad - a.grad.mean(dim=tuple(range(1, a.dim())), keepdim=True)
        torch.nn.utils.clip_grad_norm_(torchs, 0.5)
        mine.step()
        theirs.step()
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", ENGINES.values())
def test_choices_by_numbers_of_rows_between_numbers(options: dict[str, Any]) -> None:
    """What stands in the choice is as large as what decides."""

    def rule(p: Any, g: Any, lr: Any) -> Any:
        of_all = xp.norm(g, over="all")
        size = xp.norm(g, over="row")
        chosen = xp.where(size > of_all / 2, of_all, lr) + xp.where(size > 1, 2.0, lr) * xp.sum(
            p, over="column"
        )
        return p - chosen * g

    shapes = [(3, 4), (4,)]
    params = [Parameter(normal(shape, i)) for i, shape in enumerate(shapes)]
    before, grads = (
        [p.detach().clone() for p in params],
        [normal(shape, 7 + i) for i, shape in enumerate(shapes)],
    )
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer_of(rule, params, **options).step()
    of_all = torch.cat([grad.flatten() for grad in grads]).norm()
    for param, p, g in zip(params, before, grads, strict=True):
        size = of_lines("row", torch.linalg.vector_norm, g)
        chosen = torch.where(size > of_all / 2, of_all, 0.25) + torch.where(size > 1, 2.0, 0.25) * of_lines(
            "column", torch.sum, p
        )
        torch.testing.assert_close(param.detach(), p - chosen * g, rtol=1e-12, atol=0)


def test_where_torch_runs_the_rule_as_it_stands() -> None:
    """erf is no word of kernels; and a rule for whole tensors."""

    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * torch.erf(g) / xp.norm(g, 1, over="row")

    class Whole(TensorOptimizer):
        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

        @staticmethod
        def rule(p: Tensor, g: Tensor, lr: float) -> Tensor:
            return p - lr * torch.erf(g) / our_xp.norm(g, 1, over="row")

    grad = normal((3, 4))
    expected = -0.25 * torch.erf(grad) / grad.abs().sum(dim=1, keepdim=True)
    for make in (lambda params: optimizer_of(rule, params), lambda params: Whole(params, {"lr": 0.25})):
        param = Parameter(torch.zeros(3, 4, dtype=torch.float64))
        param.grad = grad
        make([param]).step()
        torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=0)


# -- what is refused -----------------------------------------------------------------------------------------


def _rows(p: Any, g: Any, lr: Any) -> Any:
    return p - lr * g / xp.norm(g, over="row")


def test_kernels_have_no_rows() -> None:
    param = Parameter(torch.ones(2, 3))
    param.grad = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match=r"User\.rule makes a number of each row, by norm\(\)"):
        optimizer_of(_rows, [param], fused=True).step()
    assert torch.equal(param, torch.ones(2, 3))


@pytest.mark.parametrize("kind", ["complex", "sparse"])
def test_tensors_without_rows_are_refused(kind: str) -> None:
    class Rows(ElementwiseOptimizer):
        rule = staticmethod(_rows)

        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

        def sparse_gradients(self, group: Any) -> Any:
            return "rows"

    param = Parameter(torch.ones(2, 3, dtype=torch.complex64 if kind == "complex" else None))
    param.grad = torch.ones_like(param) if kind == "complex" else torch.ones(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match=rf"each row, by norm\(\); but a .* is {kind}"):
        Rows([param], {"lr": 0.25}).step()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('xp.norm(g, over="row")', "returned one number for each row, expected tensors"),
        ('p - xp.sum(xp.norm(g), over="row")', r"sum\(over='row'\) of what is one number for each tensor"),
        (
            'p - xp.sum(xp.norm(g, over="row"), over="column")',
            r"sum\(over='column'\) .* for each row already",
        ),
        ('p - xp.mean(xp.norm(g, over="row"), over="all")', r"mean\(over='all'\) .* for each row already"),
        (
            'p - xp.erf(g) / g.norm(over="row")',
            r"x\.norm\(over='row'\), but calls torch.*erf.*; write xp\.norm\(x, over='row'\)",
        ),
        ('p - xp.mean(g, over="rows")', "over='rows', expected one of 'row', 'column', 'tensor'"),
        ('p - xp.mean(g, dim=0, over="row")', "mean.* with over='row', and with other arguments"),
        ('p - g.sqrt(over="row")', "sqrt.* with over='row', and with other arguments"),
    ],
)
def test_mistakes_are_named_at_construction(text: str, words: str) -> None:
    with pytest.raises(TypeError, match=f"User.rule .*{words}"):
        optimizer_of(rule_of((text, "m")), [Parameter(torch.ones(2, 2))], ("m",))
