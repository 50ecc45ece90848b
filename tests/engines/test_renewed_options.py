"""Options that a rule renews: numbers of which a group has one, in its checkpoint."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

from torchopt_course import ElementwiseOptimizer, TensorOptimizer
from torchopt_course.engines.native.step import make_ready
from torchopt_course.transforms import clip_value

from .reducing import ENGINES, normal


class Growing(ElementwiseOptimizer):
    """Steps by the running mean of the largest gradient, and counts."""

    renews = ("size", "count")

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.5, "over_group": False, "size": 1.0, "count": 0.0, **options})

    @staticmethod
    def coefficients(lr: Any, size: Any, count: Any, over_group: Any) -> Any:
        return {"lr": lr, "size": size, "count": count, "over_group": bool(over_group)}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any, size: Any, count: Any, over_group: Any) -> Any:
        largest = xp.max(xp.abs(g), over="group" if over_group else "all")
        size = 0.5 * size + 0.5 * largest
        return p - lr * size * g, size, count + 1


def two_groups(**options: Any) -> tuple[list[Parameter], Growing]:
    params = [Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(3)]
    return params, Growing([{"params": params[:2]}, {"params": params[2:]}], **options)


def test_the_next_step_begins_with_them(engine: str) -> None:
    params, optimizer = two_groups(**ENGINES[engine])
    size, moved = 1.0, torch.zeros(3, dtype=torch.float64)
    for step in range(4):
        for i, param in enumerate(params):
            param.grad = torch.full_like(param, float(step + i + 1))
        optimizer.step()
        size = 0.5 * size + 0.5 * (step + 3)
        moved = moved - 0.5 * size * (step + 1)
        for group in optimizer.param_groups:
            assert (group["size"], group["count"]) == (size, step + 1)
    torch.testing.assert_close(params[0].detach(), moved)


def test_a_group_of_which_none_is_stepped(engine: str) -> None:
    """What is over all is renewed in every group; what is of the group stays."""
    for over_group in (False, True):
        params, optimizer = two_groups(over_group=over_group, **ENGINES[engine])
        params[0].grad = torch.full_like(params[0], 5.0)
        optimizer.step()
        sizes = [group["size"] for group in optimizer.param_groups]
        assert sizes == [3.0, 1.0 if over_group else 3.0]


class Counting(Growing):
    """Nothing is searched for."""

    renews = ("count",)
    states = ("seen",)

    @staticmethod
    def rule(p: Any, g: Any, seen: Any, lr: Any, size: Any, count: Any, over_group: Any) -> Any:
        return p - lr * (count + 1) * g, seen + g, count + 1


def test_a_group_that_has_no_gradient_for_many_steps_counts_with_the_others(engine: str) -> None:
    make_ready()
    params = [Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2)]
    optimizer = Counting([{"params": [param]} for param in params], **ENGINES[engine])
    for step in range(8):
        params[0].grad = torch.ones_like(params[0])
        if step == 7:
            params[1].grad = torch.ones_like(params[1])
        optimizer.step()
        assert [group["count"] for group in optimizer.param_groups] == [step + 1.0] * 2
    assert params[0].tolist() == [-18.0] * 3
    assert params[1].tolist() == [-4.0] * 3


def test_nothing_is_renewed_without_a_gradient(engine: str) -> None:
    _, optimizer = two_groups(**ENGINES[engine])
    optimizer.step()
    assert [group["count"] for group in optimizer.param_groups] == [0.0, 0.0]


def test_an_overflow_renews_nothing(engine: str) -> None:
    params, optimizer = two_groups(**ENGINES[engine])
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    for param in params:
        param.grad = torch.full_like(param, 8.0)
    optimizer.step()
    assert optimizer.param_groups[0]["count"] == 0.0
    optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    for param in params:
        param.grad = torch.full_like(param, 8.0)
    optimizer.step()
    assert optimizer.param_groups[0]["size"] == 0.5 + 0.5 * 2


def test_a_tensor_stays_the_same_object() -> None:
    size = torch.tensor(1.0, dtype=torch.float64)
    param = Parameter(torch.zeros(2))
    optimizer = Growing([param], size=size)
    param.grad = torch.full_like(param, 5.0)
    optimizer.step()
    assert optimizer.param_groups[0]["size"] is size
    assert size.item() == 3.0


def test_checkpoints_and_copies_have_them() -> None:
    params, optimizer = two_groups()
    params[0].grad = torch.full_like(params[0], 5.0)
    optimizer.step()
    _, other = two_groups()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (other, copy.deepcopy(optimizer)):
        assert [group["size"] for group in each.param_groups] == [3.0, 3.0]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("(p, g)", r"renewed 'size' with a tensor, expected one number"),
        ("(p, xp.norm(g))", r"renewed 'size' with a number that is not the same for all tensors"),
        (
            "(p, size * xp.norm(g) + xp.norm(g, over='all'))",
            r"renewed 'size' with a number that is not the same",
        ),
        ("(p, None)", r"renewed 'size' with a NoneType, expected one number"),
        ("(p, 'x')", r"renewed 'size' with a str, expected one number"),
        ("p", r"returned one value, expected \(p, size\)"),
        ("(p - g if xp.norm(g, over='all') > 1 else p, size)", r"over='all'.*xp\.where"),
        ("(p - xp.cumsum(g, 0), size)", r"renews options.*cumsum"),
    ],
)
def test_mistakes_are_named(result: str, words: str) -> None:
    class User(ElementwiseOptimizer):
        renews = ("size",)
        coefficients = staticmethod(lambda size: {"size": size})
        rule = staticmethod(eval(f"lambda p, g, size: {result}", {"xp": torch}))

    with pytest.raises(TypeError, match=rf"User\.rule .*{words}"):
        User([Parameter(normal((3,)))], {"size": 1.0})


def test_declarations_are_checked() -> None:
    class NoOption(Growing):
        renews = ("size", "speed")  # type: ignore[assignment]

    class Word(Growing):
        renews = "size"  # type: ignore[assignment]

    class Whole(TensorOptimizer):
        renews = ("size",)
        coefficients = staticmethod(lambda size: {"size": size})
        rule = staticmethod(lambda p, g, size: (p, size))

    param = Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match=r"NoOption\.renews asks for 'speed', expected .*size"):
        NoOption([param])
    with pytest.raises(TypeError, match=r"Word\.renews is a str, 'size', expected a tuple"):
        Word([param])
    with pytest.raises(TypeError, match=r"Whole declares renews .*states"):
        Whole([param], {"size": 1.0})


def test_transforms_come_first() -> None:
    """Of a gradient that is clipped first the rule makes its number."""
    params, optimizer = two_groups(transforms=[clip_value(2.0)])
    others, plain = two_groups()
    for mine, theirs in zip(params, others, strict=True):
        mine.grad, theirs.grad = torch.full_like(mine, 5.0), torch.full_like(theirs, 2.0)
    optimizer.step()
    plain.step()
    assert [group["size"] for group in optimizer.param_groups] == [1.5, 1.5]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(params, others, strict=True))


class Shrinking(ElementwiseOptimizer):
    """Halves its rate in each step: a number of coefficients alone."""

    renews = ("lr",)
    coefficients = staticmethod(lambda lr: {"lr": lr})
    rule = staticmethod(lambda p, g, lr: (p - lr * g, 0.5 * lr))


def test_what_is_renewed_of_coefficients_alone(engine: str) -> None:
    """No step may be taken without: not by the one native call either."""
    make_ready()
    param = Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = Shrinking([param], {"lr": 1.0, **ENGINES[engine]})
    for step in range(5):
        param.grad = torch.ones_like(param)
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == 0.5 ** (step + 1)
    assert param[0].item() == -1.9375
