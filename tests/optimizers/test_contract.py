"""Drop-in: signatures, groups, state, hooks, closures and options behave as those of torch.optim."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc

from ..helpers import NAMES, engines_used, every_engine, ours, parameters, set_gradients, theirs


def torch_class(name: str) -> type[torch.optim.Optimizer]:
    return getattr(torch.optim, "SGD" if name == "Momentum" else name)


@pytest.mark.parametrize("name", NAMES)
def test_signature(name: str) -> None:
    """Names, order, defaults and kinds of all arguments; three more, and RMSprop's ``fused``."""
    mine = dict(inspect.signature(getattr(oc, name)).parameters)
    reference = dict(inspect.signature(torch_class(name)).parameters)
    for storage in ("state_dtype", "rounding"):
        assert mine[storage].kind is inspect.Parameter.KEYWORD_ONLY
        assert mine.pop(storage).default is None
    assert mine["transforms"].kind is inspect.Parameter.KEYWORD_ONLY
    assert mine.pop("transforms").default == ()
    if name == "RMSprop":
        assert mine.pop("fused").kind is inspect.Parameter.KEYWORD_ONLY
    if name == "Momentum":
        assert mine["momentum"].default == 0.9
        mine["momentum"] = mine["momentum"].replace(default=0)
    strip = [(p.name, p.kind, p.default) for p in mine.values()]
    assert strip == [(p.name, p.kind, p.default) for p in reference.values()]


@pytest.mark.parametrize("name", NAMES)
def test_param_groups_and_state_keys(name: str) -> None:
    mine, reference = parameters(["vector"]), parameters(["vector"])
    optimizer, other = ours(name)(mine), theirs(name)(reference)
    for each in (optimizer, other):
        each.add_param_group({"params": parameters(["matrix"])})
    assert optimizer.defaults == other.defaults
    assert optimizer.state_dict()["param_groups"] == other.state_dict()["param_groups"]
    assert [set(group) for group in optimizer.param_groups] == [set(group) for group in other.param_groups]
    assert set(optimizer.state_dict()["state"]) == set(other.state_dict()["state"]), "before the first step"
    set_gradients(0, mine, reference)
    optimizer.step()
    other.step()
    assert [list(s) for s in optimizer.state.values()] == [list(s) for s in other.state.values()]


def test_module_has_the_names_of_torch_optim() -> None:
    assert oc.lr_scheduler.StepLR is torch.optim.lr_scheduler.StepLR
    assert oc.LBFGS is torch.optim.LBFGS
    assert oc.Adam is not torch.optim.Adam
    with pytest.raises(AttributeError, match="Adamm"):
        oc.Adamm  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_hooks_closure_and_return_value(name: str) -> None:
    seen: list[str] = []
    weights = nn.Parameter(torch.ones(3))
    optimizer = ours(name)([weights], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))

    def closure() -> torch.Tensor:
        seen.append("closure")
        optimizer.zero_grad()
        loss = (weights**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():  # the closure must have gradients all the same
        loss = optimizer.step(closure)
    assert seen == ["pre", "closure", "post"]
    assert loss is not None
    assert float(loss.detach()) == 3.0
    assert not torch.equal(weights.detach(), torch.ones(3))
    assert optimizer.step() is None
    assert torch.is_grad_enabled()


def test_hooks_run_once_when_a_subclass_extends_step() -> None:
    class Counting(oc.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            return super().step(closure)

    params = parameters(["vector"])
    optimizer, seen = Counting(params), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.step()
    assert (seen, optimizer.steps) == (["pre"], 1)


def test_group_is_the_dictionary_that_was_given() -> None:
    """As in torch: who keeps the dictionary can change the options through it."""
    params = parameters(["vector", "matrix"])
    group = {"params": iter(params[1:])}
    optimizer = oc.SGD(params[:1])
    optimizer.add_param_group(group)
    assert optimizer.param_groups[1] is group
    assert group["params"] == params[1:]


@pytest.mark.parametrize("name", NAMES)
def test_schedulers_of_torch_change_the_rate(name: str) -> None:
    mine, reference = parameters(["vector"]), parameters(["vector"])
    optimizers = ours(name)(mine, lr=0.1), theirs(name)(reference, lr=0.1)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5) for optimizer in optimizers]
    for step in range(5):
        set_gradients(step, mine, reference)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(mine[0], reference[0])


def test_named_parameters() -> None:
    module = nn.Linear(3, 2)
    optimizer = oc.Adam(module.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    module.bias.data = torch.zeros(5)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0 \(bias\)"):
        optimizer.step()


def test_old_checkpoints_without_newer_options() -> None:
    """torch sets what a checkpoint does not know to its constructor's default; steps may be numbers."""
    params = parameters(["vector"])
    optimizer = oc.Adam(params, amsgrad=True, fused=True)
    state = {
        "state": {0: {"step": 7, "exp_avg": torch.zeros(7), "exp_avg_sq": torch.ones(7)}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0, "params": [0]}],
    }
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["amsgrad"] is False
    assert optimizer.param_groups[0]["maximize"] is False
    set_gradients(0, params)
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 8


def test_adamw_stays_adamw_with_a_checkpoint_of_adam() -> None:
    optimizer = oc.AdamW(parameters(["vector"]))
    optimizer.load_state_dict(torch.optim.Adam(parameters(["vector"])).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_checkpoint_is_read_with_weights_only(tmp_path: Any) -> None:
    params = parameters()
    optimizer = oc.Adam(params, amsgrad=True)
    set_gradients(0, params)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))


def test_group_has_an_initial_accumulator_value_of_its_own() -> None:
    """torch fills all sums with the constructor's value."""
    params = parameters(["vector", "matrix"])
    groups = [{"params": params[:1], "initial_accumulator_value": 0.25}, {"params": params[1:]}]
    optimizer = oc.Adagrad(groups, initial_accumulator_value=1.0)
    assert optimizer.state[params[0]]["sum"].eq(0.25).all()
    assert optimizer.state[params[1]]["sum"].eq(1.0).all()


@every_engine
def test_nesterov_leaves_the_gradient_alone(engine: dict[str, bool]) -> None:
    """torch's foreach version writes into ``p.grad``."""
    params = parameters(["vector"])
    optimizer = oc.SGD(params, momentum=0.9, nesterov=True, **engine)
    set_gradients(0, params)
    assert params[0].grad is not None
    before = params[0].grad.clone()
    for _ in range(2):
        optimizer.step()
        assert torch.equal(params[0].grad, before)


def test_first_gradient_may_come_late_with_fused() -> None:
    """torch's fused SGD raises when a parameter gets its first gradient after the first step."""
    mine, reference = parameters(["vector", "matrix"]), parameters(["vector", "matrix"])
    optimizer = oc.SGD(mine, lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    other = torch.optim.SGD(reference, lr=0.1, momentum=0.9, dampening=0.5)
    for step in range(4):
        set_gradients(step, mine, reference)
        if step < 2:
            mine[1].grad = reference[1].grad = None
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin)


@pytest.mark.parametrize("name", NAMES)
def test_choice_of_engine(name: str) -> None:
    def engine(**options: Any) -> dict[str, Any]:
        params = parameters(["vector"])
        optimizer = ours(name)(params, **options)
        set_gradients(0, params)
        optimizer.step()
        return engines_used(optimizer)

    assert engine() == engine(fused=True) == {"cpu": 1, "foreach": 0, "eager": []}
    assert engine(fused=False) == {"cpu": 0, "foreach": 0, "eager": ["fused=False"]}
    assert engine(foreach=False) == {"cpu": 0, "foreach": 0, "eager": ["foreach=False"]}
    assert engine(foreach=True) == {"cpu": 0, "foreach": 1, "eager": []}
    assert engine(foreach=False, fused=True)["cpu"] == 1


def test_engine_report() -> None:
    """One line for each case, with the reason why no faster engine took it and where that is."""
    params = parameters(["vector", "matrix", "sliced"])
    optimizer = oc.SGD([("a", params[0]), ("b", params[1]), ("c", params[2])], lr=0.1)
    assert optimizer.engine_report() == "no step() yet: engines are chosen when gradients are there"
    set_gradients(0, params)
    params[1].grad = None
    optimizer.step()
    assert optimizer.engine_report().splitlines() == [
        "fused CPU engine: 1 parameter, 7 elements",
        "no engine: 1 parameter, 15 elements, because no gradient (first: parameter 1 of group 0 (b))",
        "eager engine: 1 parameter, 12 elements, because its elements are not next to one another in memory "
        "(first: parameter 2 of group 0 (c))",
    ]


def test_torchs_fused_step_mixes_up_elements_and_ours_does_not() -> None:
    """torch 2.14: a gradient in another memory layout than its parameter is read in the wrong order."""
    results = []
    for make, fused in ((torch.optim.SGD, False), (torch.optim.SGD, True), (oc.SGD, True)):
        param = nn.Parameter(torch.zeros(2, 3).t())
        param.grad = torch.arange(6.0).reshape(3, 2)
        make([param], lr=1.0, fused=fused).step()
        results.append(param.detach())
    assert not torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_profiler_shows_the_step() -> None:
    params = parameters(["vector"])
    optimizer = oc.Adam(params)
    set_gradients(0, params)
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


def test_parameters_without_gradient_are_left_alone() -> None:
    params = parameters(["vector", "matrix"])
    optimizer = oc.Adam(params)
    optimizer.step()
    assert not optimizer.state
    params[1].grad = torch.ones(5, 3)
    before = params[0].detach().clone()
    optimizer.step()
    assert list(optimizer.state) == params[1:]
    assert torch.equal(params[0], before)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_steps_in_inference_mode_and_with_gradients_that_have_a_graph() -> None:
    weights = nn.Parameter(torch.ones(3))
    optimizer = oc.Adam([weights], lr=0.1)
    (weights**3).sum().backward(create_graph=True)
    optimizer.step()
    assert weights.is_leaf
    assert not optimizer.state[weights]["exp_avg"].requires_grad
    with torch.inference_mode():
        optimizer.step()
    weights.grad = None
    (weights**2).sum().backward()
    optimizer.step()
