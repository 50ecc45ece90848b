"""Numbers of several tensors where they cannot be had are refused by name, never made of a part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer, TensorOptimizer

from .formulas import rule_of
from .reducing import ENGINES, optimizer_of
from .several import ClippedAdam, clipped, parameters, set_gradients


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('p - xp.norm(g, over="grup") * g', r"norm\(\) with over='grup', expected .* 'group', 'all'"),
        ("p - xp.mean(g, over=1) * g", r"mean\(\) with over=1"),
        ('p - xp.mean(g, dim=0, over="all") * g', r"mean\(\) with over='all'"),
        ('p - g.abs(over="all")', r"abs\(\) with over='all'"),
        ('p - xp.sum(xp.norm(g), over="all") * g', r"sum\(over='all'\) of what is one number"),
        ('p - g / xp.norm(g, over="all") if xp.norm(g, over="all") > 1 else p', r"over='all'.*xp\.where"),
        ('p - xp.special.erf(g) / xp.norm(g, over="all")', r"over='all'.*special.*erf"),
        ('p / xp.norm(g, over="group") - xp.cumsum(g, 0)', r"over='group'.*cumsum"),
        ('xp.norm(g, over="all")', r"returned one number of a whole tensor, expected tensors"),
    ],
)  # fmt: skip
def test_mistakes_are_named_at_construction(text: str, words: str) -> None:
    rule = rule_of((text, "m"))
    with pytest.raises(TypeError, match=f"User.rule .*{words}"):
        optimizer_of(rule, parameters(), ("m",))


def test_a_rule_that_was_left_to_torch_before_it_asked_says_so_in_the_step() -> None:
    params = parameters()
    rule = rule_of(('p - xp.cumsum(g, 0) / xp.norm(g, over="group")', "m"))
    optimizer = optimizer_of(rule, params, ("m",))
    set_gradients(params, 1)
    with pytest.raises(TypeError, match=r"norm\(over='group'\) was called with one tensor.*list for kernels"):
        optimizer.step()


def test_a_rule_of_whole_tensors_has_no_numbers_of_several() -> None:
    class Wants(TensorOptimizer):
        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any) -> Any:
            return p - lr * g / xp.norm(g, over="all")

    param = Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    words = r"Wants\.rule\(lr=0\.1\), in .*: norm\(\) got .* keyword argument 'over'"
    with pytest.raises(TypeError, match=words):
        Wants([param], {"lr": 0.1}).step()
    assert torch.equal(param, torch.ones(3))


def test_parameters_that_are_stepped_one_after_the_other_are_refused() -> None:
    whole = torch.zeros(4)
    params = [Parameter(whole[:3]), Parameter(whole[1:])]
    optimizer = optimizer_of(clipped, params, ("m",))
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0 shares memory .* User\.rule .* several"):
        optimizer.step()
    assert torch.equal(whole, torch.zeros(4))


def test_groups_must_ask_for_the_same_numbers() -> None:
    params = [Parameter(torch.zeros(3)), Parameter(torch.zeros(3))]
    optimizer = ClippedAdam([{"params": params[:1], "of_group": True}, {"params": params[1:]}])
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(
        RuntimeError, match=r"ClippedAdam\.rule asks for norm\(over='all'\).*norm\(over='group'\)"
    ):
        optimizer.step()
    assert all(torch.equal(param, torch.zeros(3)) for param in params)


@pytest.mark.parametrize("dtype", [torch.complex64])
def test_complex_numbers_are_refused(engine: str, dtype: torch.dtype) -> None:
    param = Parameter(torch.ones(3, dtype=dtype))
    param.grad = torch.ones(3, dtype=dtype)
    options = {name: value for name, value in ENGINES[engine].items() if name == "foreach"}
    with pytest.raises(RuntimeError, match=r"norm\(\); but a parameter is complex"):
        optimizer_of(clipped, [param], ("m",), **options).step()


def test_sparse_gradients_are_refused_or_made_dense() -> None:
    class Rows(ElementwiseOptimizer):
        coefficients = staticmethod(lambda lr: {"lr": lr})
        rule = staticmethod(lambda p, g, lr: p - lr * g / g.norm(over="all"))

        def sparse_gradients(self, group: Any) -> Any:
            return group["how"]

    for how in ("rows", "dense"):
        params = [Parameter(torch.zeros(3, 2)), Parameter(torch.zeros(2))]
        optimizer = Rows(params, {"lr": 1.0, "how": how})
        params[0].grad = torch.sparse_coo_tensor([[1]], [[3.0, 0.0]], (3, 2))
        params[1].grad = torch.tensor([4.0, 0.0])
        if how == "rows":
            with pytest.raises(RuntimeError, match=r"norm\(\); but a gradient .*sparse"):
                optimizer.step()
            continue
        optimizer.step()
        torch.testing.assert_close(params[0][1], torch.tensor([-0.6, 0.0]))
        torch.testing.assert_close(params[1].detach(), torch.tensor([-0.8, 0.0]))
