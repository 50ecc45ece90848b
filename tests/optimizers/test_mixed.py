"""One optimizer that sends each parameter to its own class: the same as several side by side."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from torchopt_course import AdamW, ElementwiseOptimizer, Mixed, Momentum, TensorOptimizer


class Spectral(TensorOptimizer):
    """A step along the direction of the first singular vectors, for matrices."""

    states = ("m",)

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def why_not(self, param: Tensor) -> str | None:
        return super().why_not(param) or ("it is no matrix" if param.dim() != 2 else None)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        m = 0.9 * m + g
        if m.isnan().any():
            raise ValueError("no singular vectors")
        return p - lr * m / torch.linalg.matrix_norm(m, 2), m


def is_matrix(name: str, param: Tensor) -> bool:
    return param.dim() == 2 and not name.startswith("2")


ROUTES = [(is_matrix, Spectral, {"lr": 0.05}), (None, AdamW, {"lr": 0.02, "weight_decay": 0.1})]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def train(model: nn.Module, optimizers: list[Any], steps: range, schedules: list[Any] | None = None) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(inputs).square().sum().backward()
        for each in optimizers + (schedules or []):
            each.step()


def equal(a: nn.Module, b: nn.Module, atol: float = 0.0) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(
            p.detach(), q.detach(), rtol=0, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_as_two_optimizers_with_two_schedules() -> None:
    model, twin = network(), network()
    one = Mixed(model.named_parameters(), ROUTES)
    named = dict(twin.named_parameters())
    two = [
        Spectral([named.pop("0.weight")], lr=0.05),
        torch.optim.AdamW(named.values(), lr=0.02, weight_decay=0.1),
    ]

    def schedules(optimizers: list[Any]) -> list[Any]:
        return [torch.optim.lr_scheduler.ExponentialLR(each, 0.95) for each in optimizers]

    train(model, [one], range(60), schedules([one]))
    train(twin, two, range(60), schedules(two))
    equal(model, twin, atol=1e-10)
    assert [group["optimizer"] for group in one.param_groups] == ["Spectral", "AdamW"]
    assert one.param_groups[1]["param_names"] == ["0.bias", "2.weight", "2.bias"]
    assert one.engine_report().splitlines() == [
        "torch, whole tensors: 1 parameter, 20 elements",
        "fused CPU engine: 3 parameters, 23 elements",
    ]


def test_checkpoint_copies_and_pickles_go_on() -> None:
    model = network()
    optimizer = Mixed(model.named_parameters(), ROUTES)
    train(model, [optimizer], range(3))
    state = copy.deepcopy(optimizer.state_dict())
    ends = []
    for make in ("load", "copy", "pickle"):
        if make == "load":
            other = network()
            other.load_state_dict(model.state_dict())
            twin = Mixed(other.named_parameters(), ROUTES)
            twin.load_state_dict(state)
        else:
            both = (
                copy.deepcopy((model, optimizer))
                if make == "copy"
                else pickle.loads(pickle.dumps((model, optimizer)))
            )
            other, twin = both
        train(other, [twin], range(3, 6))
        ends.append(other)
    train(model, [optimizer], range(3, 6))
    for other in ends:
        equal(model, other)


def test_what_one_class_cannot_step_changes_nothing_of_the_other() -> None:
    model = network()
    optimizer = Mixed(model.named_parameters(), ROUTES)
    train(model, [optimizer], range(2))
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    model[0].weight.grad.fill_(float("nan"))
    with pytest.raises(
        ValueError, match=r"parameter 0 of group 0 \(0.weight\): Spectral\.rule\(.*\), in `.*`: no singular"
    ):
        optimizer.step()
    after = (model.state_dict(), optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_groups_come_later_and_have_options_of_their_own() -> None:
    a, b, c = (Parameter(torch.ones(s)) for s in [(2, 2), (2,), (3, 3)])
    optimizer = Mixed([a, b], [(lambda _, p: p.dim() == 2, Spectral), (None, Momentum)])
    optimizer.add_param_group({"params": [c], "lr": 0.5})
    assert [(g["optimizer"], g["lr"], len(g["params"])) for g in optimizer.param_groups] == [
        ("Spectral", 0.1, 1), ("Momentum", 0.001, 1), ("Spectral", 0.5, 1)
    ]  # fmt: skip
    for param in (a, b, c):
        param.grad = torch.eye(len(param)) if param.dim() == 2 else torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(c.detach(), torch.ones(3, 3) - 0.5 * torch.eye(3))
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [b]})


class WithAStep(ElementwiseOptimizer):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize(
    ("routes", "error", "match"),
    [
        ([], ValueError, "no routes"),
        ([(None, torch.optim.AdamW)], TypeError, "expected a class made of ElementwiseOptimizer"),
        ([(None, WithAStep)], TypeError, r"WithAStep has a step\(\) of its own"),
        ([(None, AdamW), (None, Momentum)], ValueError, r"route 1 \(Momentum\) gets nothing"),
        (
            [(is_matrix, AdamW), (None, type("AdamW", (AdamW,), {}))],
            ValueError,
            "another class of the name AdamW",
        ),
        ([(3, AdamW)], TypeError, "a int, 3 for its predicate"),
        ([AdamW], TypeError, "route 0 is a .*expected"),
        (
            [(lambda _, p: p.dim() > 5, AdamW)],
            ValueError,
            r"parameter 0 \(0.weight\).*takes none of the routes",
        ),
        (
            [(None, Spectral)],
            ValueError,
            "Spectral cannot take parameter 1 of group 0 .0.bias.: it is no matrix",
        ),
        ([(None, AdamW, {"lr": -1.0})], ValueError, "learning rate: -1.0"),
    ],
)
def test_bad_routes(routes: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Mixed(network().named_parameters(), routes)


def test_one_tensor_under_two_names_is_not_stepped_by_two_rules() -> None:
    model = network()
    model[2].weight = model[0].weight
    twice = model.named_parameters(remove_duplicate=False)
    with pytest.raises(ValueError, match=r"parameter 2 stands there twice.*two routes: Spectral and AdamW"):
        Mixed(twice, ROUTES)


def test_names_that_a_predicate_needs() -> None:
    with pytest.raises(AttributeError, match="predicate of Spectral, for parameter 0, which has no name"):
        Mixed(network().parameters(), ROUTES)


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (lambda s: s["param_groups"].reverse(), ValueError, "group 0 is one of AdamW, expected Spectral"),
        (
            lambda s: s["state"][0].update(m=torch.ones(2)),
            ValueError,
            r"'m' of parameter 0 of group 0 \(0.w.*\(2,\)",
        ),
        (lambda s: s["state"][2].pop("step"), KeyError, r"parameter 1 of group 1 \(2.weight\) has no 'step'"),
    ],
)
def test_checkpoints_of_others_are_refused(edit: Any, error: type[Exception], match: str) -> None:
    model = network()
    optimizer = Mixed(model.named_parameters(), ROUTES)
    train(model, [optimizer], range(2))
    state: Mapping[str, Any] = copy.deepcopy(optimizer.state_dict())
    edit(state)
    with pytest.raises(error, match=match):
        optimizer.load_state_dict(state)


def test_edited_groups_are_named() -> None:
    model = network()
    optimizer = Mixed(model.named_parameters(), ROUTES)
    for wrong, error in {"Adam": ValueError, None: KeyError}.items():
        model[0].weight.grad = torch.ones_like(model[0].weight)
        group = optimizer.param_groups[0]
        group.pop("optimizer") if wrong is None else group.update(optimizer=wrong)
        with pytest.raises(error, match="group 0"):
            optimizer.step()
