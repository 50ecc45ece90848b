"""Numbers of several tensors against an independent truth: each tensor in a thread that waits."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from .formulas import formulas, rule_of
from .reducing import ENGINES, interpret_cuda, normal, optimizer_of
from .several import SHAPES, parameters


class _Together:
    """``xp`` for the threads of all tensors: a reduction over several waits for the others."""

    def __init__(self, groups: Sequence[int]) -> None:
        self.barrier = threading.Barrier(len(groups))
        self.groups = groups
        self.slots: list[Any] = [None] * len(groups)

    def of(self, mine: int) -> Any:
        names = {name: getattr(torch, name) for name in dir(torch) if not name.startswith("__")}
        for name in ("sum", "mean", "norm", "max", "min", "any", "all", "count_nonzero"):
            names[name] = self._reduction(getattr(torch, name), mine)
        names["rms"] = lambda x, over: torch.sqrt(names["mean"](x * x, over=over))
        names["dot"] = lambda x, y, over: names["sum"](x * y, over=over)
        return SimpleNamespace(**names)

    def _reduction(self, function: Callable[..., Any], mine: int) -> Callable[..., Any]:
        def reduce(x: Tensor, over: str = "tensor") -> Any:
            if over == "tensor":  # torch has no extremes of nothing, for which no element asks either
                nothing = {torch.max: -math.inf, torch.min: math.inf}
                return (
                    function(x) if x.numel() or function not in nothing else torch.tensor(nothing[function])
                )
            self.slots[mine] = x
            self.barrier.wait()
            own = self.groups[mine]
            several = [
                each.flatten()
                for each, group in zip(self.slots, self.groups, strict=True)
                if over == "all" or group == own
            ]
            self.barrier.wait()
            return function(torch.cat(several))

        return reduce


def in_lockstep(
    rule: Callable[..., Any], tensors: Sequence[tuple[Tensor, ...]], groups: Sequence[int]
) -> list[Any]:
    """The rule of all tensors, each in a thread of its own."""
    together, results, errors = _Together(groups), [None] * len(tensors), []

    def run(i: int) -> None:
        try:
            function = type(rule)(rule.__code__, {**rule.__globals__, "xp": together.of(i)})
            results[i] = function(*tensors[i], 0.25)
        except Exception as error:
            errors.append(error)
            together.barrier.abort()

    running = [threading.Thread(target=run, args=(i,)) for i in range(len(tensors))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return results


GROUPS = [0, 0, 1, 1, 1, 1]
SPELLINGS = (
    *(f'xp.{name}(g, over="all")' for name in ("sum", "mean", "norm", "max", "min", "count_nonzero", "rms")),
    *('xp.any(g > 2.5, over="group")', 'xp.all(g > -9, over="all")', 'xp.dot(g, p, over="group")'),
    *('xp.sum(g > 0.5, over="group")', 'xp.max(0 * g + xp.norm(g), over="all")'),
    'xp.norm(g / xp.norm(g, over="all"), over="group") * xp.norm(g) - xp.mean(g)',
    'xp.clamp(xp.sum(g, over="all"), min=3.0) + xp.minimum(xp.norm(g), xp.norm(g, over="all"))',
    'xp.where(xp.isfinite(xp.sum(g, over="all")) & (xp.max(g) > 0), 0.3, 0.7)',
    'xp.where(xp.norm(g) > 1, xp.norm(g, over="all"), xp.norm(g, over="group"))',
    'xp.where(xp.norm(g, over="all") > 1, xp.norm(g), 0.5) + xp.sqrt(xp.abs(xp.sum(g, over="all")))',
    'xp.norm(xp.where(g > 0, xp.max(g, over="all"), lr), over="all")',
)


def stepping(
    rule: Callable[..., Any], engine: str, steps: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[list[Any], str]:
    """Parameters and states after some steps, with the report."""
    params = parameters(dtype)
    groups = [{"params": [p for p, i in zip(params, GROUPS, strict=True) if i == k]} for k in (0, 1)]
    optimizer = optimizer_of(rule, groups, ("m",), **ENGINES[engine])
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = normal(SHAPES[i], 10 + i + step, dtype)
        optimizer.step()
    values = [value for p in params for value in (p.detach(), optimizer.state[p]["m"])]
    return values, optimizer.engine_report()


def expected(rule: Callable[..., Any], steps: int = 2) -> list[Any]:
    torch.set_default_dtype(torch.float64)  # of numbers as tensors
    values = [(normal(shape, i), torch.zeros(shape, dtype=torch.float64)) for i, shape in enumerate(SHAPES)]
    for step in range(steps):
        given = [(p, normal(SHAPES[i], 10 + i + step), m) for i, (p, m) in enumerate(values)]
        values = in_lockstep(rule, given, GROUPS)
    torch.set_default_dtype(torch.float32)
    return [value for each in values for value in each]


@pytest.mark.parametrize("start", [0, 6, 12])
def test_each_number_is_that_of_all_tensors_together(engine: str, start: int) -> None:
    """Several in one rule: a state is full of their sum, so that one that is wrong is seen."""
    terms = [f"{0.5 + k} * ({text})" for k, text in enumerate(SPELLINGS[start : start + 6])]
    rule = rule_of(("p - lr * g", f"0 * m + {' + '.join(terms)}"))
    values, report = stepping(rule, engine)
    assert report.startswith(engine), report
    torch.testing.assert_close(values, expected(rule), rtol=1e-11, atol=1e-11)


AMONG_ELEMENTS = (
    'xp.where(xp.isfinite(xp.norm(g, over="all")), m + g, m)',
    'xp.where(xp.norm(g, over="all") > 1e9, m, 0.25)',
    'xp.where((g > 0) & (xp.norm(g, over="all") > 1), xp.sum(g, over="all"), 2.0)',
    '(xp.maximum(xp.mean(g, over="all"), g) - xp.minimum(g, xp.mean(g, over="group")))',
    'xp.where(g > 0, xp.max(g, over="all"), xp.min(g, over="group"))',
    '(m + xp.norm(g, over="all"))',
    '(0 * m + xp.any(g > 2, over="all"))',
)


def test_elements_meet_numbers_of_several_tensors(engine: str) -> None:
    rule = rule_of(("p - lr * g", " + ".join(f"{0.5 + k} * {text}" for k, text in enumerate(AMONG_ELEMENTS))))
    values, report = stepping(rule, engine)
    assert report.startswith(engine), report
    torch.testing.assert_close(values, expected(rule), rtol=1e-11, atol=1e-11)


_OVER = (', over="all"', ', over="group"', "")
_REDUCTIONS = tuple(
    f"xp.{name}({{}}{over})"
    for name in ("sum", "mean", "norm", "max", "min", "count_nonzero")
    for over in _OVER
) + tuple(f"(0.5 * xp.any({{}} > lr{over}))" for over in _OVER)


@pytest.mark.parametrize("examples", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_every_engine_computes_what_torch_does(examples: int) -> None:
    settings(max_examples=examples)(given(formulas(_REDUCTIONS))(check_on_every_engine))()


def check_on_every_engine(formula: tuple[str, str]) -> None:
    rule = rule_of(formula)
    truth = expected(rule)
    for name in ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            if name == "fused CUDA engine":
                interpret_cuda(patch)
            values, report = stepping(rule, name)
        assert report.startswith(name), report
        torch.testing.assert_close(values, truth, rtol=1e-9, atol=1e-11)
