"""What an optimizer can it can with transforms: groups, closures, precisions, routes, whole tensors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.prepared import PreparedStep
from torchopt_course.testing import optimizer_checks
from torchopt_course.transforms import (
    cautious,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema,
    lookahead,
    skip_nonfinite,
)

from ..helpers import every_engine, parameters, set_gradients
from .test_checkpoints_with_them import chain, stepped

KINDS = ["vector", "matrix", "scalar", "channels_last"]


def test_groups_have_options_of_their_own() -> None:
    params, twins = parameters(KINDS), parameters(KINDS)
    optimizer = oc.SGD([{"params": params[:2], "max_norm": 0.1}], lr=0.1, transforms=[clip_norm(0.5)])
    optimizer.add_param_group({"params": params[2:]})
    others = [
        oc.SGD(twins[:2], lr=0.1, transforms=[clip_norm(0.1)]),
        oc.SGD(twins[2:], lr=0.1, transforms=[clip_norm(0.5)]),
    ]
    for step in range(3):
        set_gradients(step, params, twins)
        for each in (optimizer, *others):
            each.step()
    assert all(map(torch.equal, params, twins))
    with pytest.raises(ValueError, match="max_norm"):
        optimizer.add_param_group({"params": parameters(["vector"]), "max_norm": -1.0})
    assert len(optimizer.param_groups) == 2
    for transforms in ([], [ema()]):
        with pytest.raises(ValueError, match="all groups have the optimizer's"):
            oc.SGD(
                [{"params": parameters(["vector"]), "transforms": [clip_norm(1.0)]}], transforms=transforms
            )


@every_engine
def test_transforms_are_no_option_of_a_group(engine: dict[str, Any]) -> None:
    params = parameters(KINDS)
    optimizer = oc.SGD(params, transforms=[clip_norm(0.5)], **engine)
    stepped(optimizer, params, range(120))  # the native step knows it too
    optimizer.param_groups[0]["transforms"] = ""
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match="says '' for its transforms, but SGD was made with 'clip_norm'"):
        stepped(optimizer, params, range(1))
    assert torch.equal(params[0], before)


def test_an_option_may_change_during_training(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    take = PreparedStep.take

    def record(prepared: PreparedStep, of: Any) -> bool:
        found = take(prepared, of)
        if of is optimizer:
            taken.append(found)
        return found

    monkeypatch.setattr(PreparedStep, "take", record)
    params, twins = parameters(KINDS[:3]), parameters(KINDS[:3])
    optimizer = oc.Adam(params, transforms=[clip_value(0.5), ema(0.9)])
    other = oc.Adam(twins, transforms=[clip_value(0.5), ema(0.9)], fused=False)
    for step in range(8):
        for each in (optimizer, other):
            each.param_groups[0]["clip_value"] = 0.1 * (step + 1)
        set_gradients(step, params, twins)
        optimizer.step()
        other.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-6)
    assert taken == [True] * 7  # one native call, as without transforms


def test_a_closure_and_maximize() -> None:
    param, twin = Parameter(torch.tensor([1.0, -2.0])), Parameter(torch.tensor([1.0, -2.0]))
    optimizer = oc.SGD([param], lr=0.1, maximize=True, transforms=[clip_norm(0.5)])
    other = torch.optim.SGD([twin], lr=0.1, maximize=True)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 5.0
    twin.square().sum().backward()
    torch.nn.utils.clip_grad_norm_([twin], 0.5)
    other.step()
    torch.testing.assert_close(param, twin)


@pytest.mark.parametrize(
    "storage", [{"state_dtype": torch.bfloat16}, {"rounding": "kahan"}, {"rounding": "nearest"}]
)
def test_precision_of_states(storage: dict[str, Any]) -> None:
    dtype = torch.float32 if "state_dtype" in storage else torch.bfloat16
    runs = []
    for engine in ({"fused": True}, {"fused": False}):
        params = parameters(KINDS, dtype)
        optimizer = oc.Adam(params, lr=0.01, transforms=chain(), **storage, **engine)
        stepped(optimizer, params, range(5))
        runs.append((params, optimizer))
    (fused, optimizer), (eager, _) = runs
    assert optimizer.state[fused[0]]["ema"].dtype == torch.bfloat16
    for param, twin in zip(fused, eager, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-2, atol=1e-2)


def test_sparse_gradients_are_made_dense_where_torch_takes_them() -> None:
    params, twins = parameters(["matrix"]), parameters(["matrix"])
    optimizer = oc.SGD(params, lr=0.1, transforms=[clip_norm(0.5), ema(0.9)])
    other = oc.SGD(twins, lr=0.1, transforms=[clip_norm(0.5), ema(0.9)])
    for _ in range(2):
        grad = torch.sparse_coo_tensor([[1, 3]], torch.ones(2, 3), (5, 3))
        params[0].grad, twins[0].grad = grad, grad.to_dense()
        optimizer.step()
        other.step()
    assert torch.equal(params[0], twins[0])
    assert torch.equal(optimizer.state[params[0]]["ema"], other.state[twins[0]]["ema"])
    params[0].grad = grad
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        oc.Adam(params, transforms=[clip_norm(0.5)]).step()


def test_complex_parameters_are_refused_where_a_tensor_is_measured() -> None:
    params = parameters(["matrix"], torch.complex64)
    set_gradients(0, params)
    oc.SGD(params, transforms=[clip_value(0.5)]).step()
    with pytest.raises(RuntimeError, match="complex"):
        oc.SGD(params, transforms=[clip_norm(0.5)]).step()


class Rows(oc.TensorOptimizer):
    """Each row by its own length; the rule writes to what it is given."""

    states = ("seen",)

    def __init__(self, params: Any, lr: float = 0.1, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    def why_not(self, param: Any) -> str | None:
        return super().why_not(param) or ("it is no matrix" if param.dim() != 2 else None)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, seen: Any, lr: Any) -> Any:
        g /= g.norm(dim=-1, keepdim=True)
        p -= lr * g
        return p, seen + g.abs()


class StackedRows(Rows):
    stacked = True


@pytest.mark.parametrize("cls", [Rows, StackedRows])
def test_rules_of_whole_tensors(cls: Any) -> None:
    mine, reference = parameters(["matrix", "matrix"]), parameters(["matrix", "matrix"])
    optimizer = cls(mine, transforms=[clip_value(0.3), cautious(), ema(0.5)])
    other = cls(reference)
    averages = []
    for step in range(3):
        set_gradients(step, mine, reference)
        torch.nn.utils.clip_grad_value_(reference, 0.3)
        optimizer.step()
        other.step()
        averages.append([param.detach().clone() for param in reference])
    for i, (param, twin) in enumerate(zip(mine, reference, strict=True)):
        torch.testing.assert_close(param, twin)  # all updates agree with their gradients
        assert torch.equal(optimizer.state[param]["seen"], other.state[twin]["seen"])
        first, second, third = (average[i] for average in averages)
        torch.testing.assert_close(optimizer.state[param]["ema"], 0.25 * first + 0.25 * second + 0.5 * third)


def test_each_route_has_its_own() -> None:
    params, twins = parameters(["matrix", "vector"]), parameters(["matrix", "vector"])

    def is_matrix(name: Any, param: Any) -> bool:
        return param.dim() == 2

    routes = [
        (is_matrix, Rows, {"transforms": [ema(0.5)]}),
        (None, oc.AdamW, {"transforms": [clip_norm(0.5)]}),
    ]
    optimizer = oc.Mixed(params, routes)
    others = [Rows(twins[:1], transforms=[ema(0.5)]), oc.AdamW(twins[1:], transforms=[clip_norm(0.5)])]
    for step in range(3):
        set_gradients(step, params, twins)
        for each in (optimizer, *others):
            each.step()
        if step == 1:
            checkpoint = optimizer.state_dict()
            params, optimizer = copy.deepcopy((params, optimizer))
            optimizer.load_state_dict(checkpoint)
    assert all(map(torch.equal, params, twins))
    with oc.averaged_weights(optimizer):
        assert torch.equal(params[0], others[0].state[twins[0]]["ema"])
    other = oc.Mixed(parameters(["matrix", "vector"]), [(is_matrix, Rows), routes[1]])
    with pytest.raises(ValueError, match="group 0 was made with the transforms ema, the optimizer with no"):
        other.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"routes to AdamW differ in their transforms \(ema; none\)"):
        oc.Mixed(params, [(is_matrix, oc.AdamW, {"transforms": [ema()]}), (None, oc.AdamW)])


def test_released_gradients_take_them_too() -> None:
    model, twin = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    twin.load_state_dict(model.state_dict())
    optimizer = oc.Adam(model.parameters(), transforms=[clip_norm(0.5), ema(0.9)])
    other = oc.Adam(twin.parameters(), transforms=[clip_norm(0.5), ema(0.9)])
    oc.release_gradients(model, optimizer)
    for step in range(3):
        inputs = torch.full((2, 3), 1.0 + step)
        model(inputs).square().sum().backward()
        twin(inputs).square().sum().backward()
        other.step()
        other.zero_grad()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


TRANSFORMS = {
    "several": lambda: [clip_norm(1.0), cautious(), decoupled_decay(0.1), lookahead(2), ema(0.9)],
    "clip": lambda: [clip_value(0.5), clip_norm(1.0)],
    "cautious": lambda: [cautious(), decoupled_decay(0.1)],
    "lookahead, ema": lambda: [lookahead(2), ema(0.9)],
    "skip": lambda: [skip_nonfinite()],
}
# Those that transforms could make fail.
CHECKS = (
    "descends",
    "every state moves",
    "checkpoint",
    "groups",
    "deep copy",
    "pickle",
    "engines agree",
    "layouts",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "several")) for name in TRANSFORMS]
)
def test_the_kit_agrees(name: str) -> None:
    checks = optimizer_checks(lambda params: oc.Adam(params, lr=0.05, transforms=TRANSFORMS[name]()), steps=6)
    chosen = [check for check in checks if check.name in CHECKS]
    assert {check.name for check in chosen} == {*CHECKS}
    for check in chosen:
        check()
