"""A wrong state_dict is refused in words that name the difference, and the optimizer stays as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchopt_course as oc

from ..helpers import NAMES, ours, parameters, set_gradients, theirs
from .checkpoints import (
    LEFT_OUT,
    StateDict,
    assert_refused,
    change,
    checkpoint,
    family,
    goes_on,
    leaves,
    stepped,
)
from .test_write_your_own import Lion

OTHERS = ["SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW", "Lion", "Adadelta", "Adamax", "NAdam",
          "ASGD", "Rprop", "LBFGS"]  # fmt: skip
RELATIVES = [{"SGD", "Momentum"}, {"Adam", "AdamW"}]


@pytest.mark.parametrize("name", [*NAMES, "Lion"])
def test_other_optimizer(name: str) -> None:
    """torch loads any of them and fails in a later step, or never."""
    for other in OTHERS:
        if other != name and {other, name} not in RELATIVES:
            optimizer = stepped(Lion if name == "Lion" else ours(name))
            # What Adam needs is a superset of what Lion and Adamax have.
            missing = name in ("Adam", "AdamW") and other in ("Lion", "Adamax")
            error, words = (KeyError, "has no 'exp_avg_sq'") if missing else (ValueError, "another optimizer")
            assert_refused(optimizer, checkpoint(family(other)), error, words)


@pytest.mark.parametrize("name", [*NAMES, "Lion"])
def test_other_optimizer_before_its_first_step(name: str) -> None:
    """There are no states yet, so the options decide: those of Adam and its descendants are too alike."""
    alike = {"Adam", "AdamW", "Lion", "Adamax", "NAdam"}
    for other in OTHERS:
        if other != name and {other, name} not in RELATIVES and not {other, name} <= alike:
            optimizer = stepped(Lion if name == "Lion" else ours(name))
            assert_refused(
                optimizer, checkpoint(family(other)) | {"state": {}}, ValueError, "lacks the options"
            )


def test_another_optimizer_is_told_by_its_states_and_options() -> None:
    assert_refused(
        stepped(oc.SGD, momentum=0.9),
        checkpoint(torch.optim.Adam),
        ValueError,
        "SGD has neither the states 'step', 'exp_avg', 'exp_avg_sq' nor the options 'betas', 'eps'",
    )
    assert_refused(
        stepped(oc.Adam),
        checkpoint(torch.optim.SGD),
        ValueError,
        "group 0 lacks the options 'betas', 'eps'",
        "of Adam and has 'momentum', 'dampening', 'nesterov' instead",
    )


@pytest.mark.parametrize("name", ["Momentum", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_other_shapes(name: str) -> None:
    optimizer = stepped(ours(name), ["vector"], ["matrix", "scalar"], **EXTRA.get(name, {}))
    good = copy.deepcopy(optimizer.state_dict())
    for state in set(good["state"][1]) - {"step"}:
        wrong = change(good, "state", 1, state, to=torch.ones(3, 5))
        where = f"state {state!r} of parameter 0 of group 1 (matrix)"
        assert_refused(optimizer, wrong, ValueError, f"{where} has shape (3, 5), expected (5, 3)")
        wrong = change(good, "state", 1, state, to=[1.0])
        assert_refused(optimizer, wrong, TypeError, f"{where} must be a tensor, got list")


EXTRA: dict[str, dict[str, Any]] = {
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
}


def test_model_of_another_width_is_the_usual_mistake() -> None:
    """The same layers, only wider: number and order of parameters agree."""

    def trained(width: int) -> oc.Adam:
        model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
        optimizer = oc.Adam(model.named_parameters())
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        return optimizer

    words = "state 'exp_avg' of parameter 0 of group 0 (0.weight) has shape (16, 4), expected (8, 4)"
    assert_refused(trained(8), trained(16).state_dict(), ValueError, words)


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam", "AdamW"])
def test_missing_state(name: str) -> None:
    optimizer = stepped(ours(name), ["vector"], ["matrix", "scalar"])
    good = copy.deepcopy(optimizer.state_dict())
    for state in good["state"][2]:
        words = f"parameter 1 of group 1 (scalar) has no {state!r}, only "
        assert_refused(optimizer, change(good, "state", 2, state), KeyError, words)
        renamed = change(good, "state", 2, f"my_{state}", to=good["state"][2][state])
        assert_refused(optimizer, change(renamed, "state", 2, state), KeyError, words)


@pytest.mark.parametrize("name", NAMES)
def test_other_groups(name: str) -> None:
    optimizer = stepped(ours(name), ["vector", "matrix"], ["scalar"])
    make = theirs(name)
    wrong = checkpoint(make, ["vector", "matrix"])
    number = "different number of parameter groups: 1, expected 2"
    assert_refused(optimizer, wrong, ValueError, number)
    wrong = checkpoint(make, ["vector"], ["matrix", "scalar"])
    size = "group 0 has 1 parameters, expected 2, without 'matrix'"
    assert_refused(optimizer, wrong, ValueError, "doesn't match the size of optimizer's group", size)
    wrong = checkpoint(make, ["vector", "matrix"], ["scalar", "one"])
    assert_refused(optimizer, wrong, ValueError, "group 1 has 2 parameters, expected 1, and also 'one'")
    wrong = change(checkpoint(make, ["vector", "matrix"], ["scalar"]), "param_groups", 1, "params", to=[0])
    assert_refused(optimizer, wrong, ValueError, "parameter 0 twice")


GOOD = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (None, TypeError, "must be a dictionary, got NoneType"),
        ([GOOD], TypeError, "must be a dictionary, got list"),
        ("optimizer.pt", TypeError, "must be a dictionary, got str"),
        ({}, KeyError, "no 'state', but nothing"),
        ({"model": {}, "optimizer": GOOD}, KeyError, "no 'state', but 'model', 'optimizer'"),
        ({"weight": torch.ones(2)}, KeyError, "not the state_dict of an optimizer"),
        ({"state": {}}, KeyError, "no 'param_groups', but 'state'"),
        (GOOD | {"state": [1]}, TypeError, "'state' must be a dictionary, got list"),
        (GOOD | {"param_groups": {}}, TypeError, "'param_groups' must be a list, got dict"),
        (GOOD | {"param_groups": [3]}, TypeError, "group 0 must be a dictionary, got int"),
        (GOOD | {"param_groups": [{"lr": 0.1}]}, KeyError, "group 0 has no 'params', only 'lr'"),
        (GOOD | {"state": {0: [1]}}, TypeError, "parameter 0 of group 0 (vector) must be a dictionary"),
        (GOOD | {"state": {7: {}}}, ValueError, "parameter 7, which is in no group"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, str) else "",
)
def test_not_a_state_dict(wrong: Any, error: type[Exception], words: str) -> None:
    assert_refused(stepped(oc.SGD), wrong, error, words)


@pytest.mark.parametrize(
    ("step", "error"), [(torch.ones(2), ValueError), ("7", TypeError), ([3], TypeError)], ids=str
)
def test_step_that_is_no_number(step: Any, error: type[Exception]) -> None:
    optimizer = stepped(oc.Adam)
    wrong = change(copy.deepcopy(optimizer.state_dict()), "state", 1, "step", to=step)
    assert_refused(optimizer, wrong, error, "step of parameter 1 of group 0 (matrix)")


@pytest.mark.parametrize("returns", [False, True], ids=["in place", "returns another"])
def test_hook_may_make_a_foreign_checkpoint_fit(returns: bool) -> None:
    """What torch's documentation recommends: map it by the parameters' names."""
    optimizer, saved = stepped(oc.Adam, ["vector", "matrix"]), checkpoint(torch.optim.Adam, ["matrix"])

    def by_name(optimizer: torch.optim.Optimizer, state_dict: StateDict) -> StateDict | None:
        group = state_dict["param_groups"][0]
        names = optimizer.param_groups[0]["param_names"]
        state = {names.index(name): state_dict["state"][i] for i, name in enumerate(group["param_names"])}
        fitting = {
            "state": state,
            "param_groups": [group | {"params": list(range(len(names))), "param_names": names}],
        }
        if returns:
            return fitting
        state_dict.update(fitting)
        return None

    assert_refused(optimizer, saved, ValueError, "group 0 has 1 parameters, expected 2, without 'vector'")
    hook = optimizer.register_load_state_dict_pre_hook(by_name)
    optimizer.load_state_dict(saved)
    params = optimizer.param_groups[0]["params"]
    assert list(optimizer.state) == params[1:]
    assert torch.equal(optimizer.state[params[1]]["exp_avg"], saved["state"][0]["exp_avg"])
    hook.remove()
    assert_refused(optimizer, saved, ValueError, "group 0 has 1 parameters")
    assert not optimizer._optimizer_load_state_dict_pre_hooks, "the check is no hook that stays"


@pytest.mark.parametrize("names", [["vector"], [], None, 3, "vms", ["a", "b", "c", "d"]], ids=str)
def test_names_that_do_not_fit(names: Any) -> None:
    """They are for the eyes only, in torch and here: in errors, in reports."""
    saved = checkpoint(torch.optim.Adam)
    saved["param_groups"][0]["param_names"] = names
    goes_on("Adam", copy.deepcopy(saved))
    optimizer = stepped(oc.Adam)
    optimizer.load_state_dict(copy.deepcopy(saved))
    assert optimizer.param_groups[0]["param_names"] == names
    assert "parameter 0 of group 0" in repr(optimizer._where(0, 0))
    broken = change(saved, "state", 2, "exp_avg")
    assert_refused(stepped(oc.Adam), broken, KeyError, "parameter 2 of group 0 (scalar) has no 'exp_avg'")
    shorter = change(saved, "param_groups", 0, "params", to=[0, 1])
    assert_refused(stepped(oc.Adam), shorter, ValueError, "group 0 has 2 parameters, expected 3")


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_option_that_cannot_be_off(name: str) -> None:
    """torch: KeyError: 'lr', in the next step. An option that is off by default may be missing."""
    optimizer = stepped(ours(name))
    good = copy.deepcopy(optimizer.state_dict())
    wrong = change(good, "param_groups", 0, "lr")
    assert_refused(optimizer, wrong, KeyError, "loaded parameter group 0 has no 'lr', only ")
    optimizer.load_state_dict(change(good, "param_groups", 0, "weight_decay"))
    assert optimizer.param_groups[0]["weight_decay"] == 0


ODD = st.sampled_from(
    [None, 0, -1, 1.5, "x", [], {}, (), [0], ["a"], {"a": 1}, torch.ones(2), torch.tensor(1.0)]
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["SGD", "Adagrad", "RMSprop", "Adam"]), st.data())
def test_edited_anyhow(name: str, data: st.DataObject) -> None:
    """It is loaded and goes on as in torch, or refused in words of ours: never an error from inside."""
    saved = checkpoint(theirs(name), ["vector", "matrix"])
    paths = [path for path, _ in leaves(saved)]
    paths += [path[:n] for path in paths for n in range(1, len(path))]
    path = data.draw(st.sampled_from(list(dict.fromkeys(paths))))
    saved = change(saved, *path, to=data.draw(st.just(LEFT_OUT) | ODD))
    mine, reference = parameters(["vector", "matrix"]), parameters(["vector", "matrix"])
    failures: list[Exception | None] = []
    for optimizer, params in ((ours(name)(mine), mine), (theirs(name)(reference), reference)):
        set_gradients(5, params)
        try:
            optimizer.load_state_dict(copy.deepcopy(saved))
            optimizer.step()
        except Exception as error:
            failures.append(error)
        else:
            failures.append(None)
    refused, torchs = failures
    if refused is not None:
        named = any(word in str(refused) for word in ("group", "'state'", "expected"))
        assert named or type(refused) is type(torchs), repr(refused)
    elif torchs is None:  # where torch alone fails, what is missing is off for us, or begins anew
        for param, twin in zip(mine, reference, strict=True):
            torch.testing.assert_close(param, twin, rtol=2e-5, atol=2e-5, equal_nan=True)


def test_sharded_state_is_compared_by_its_global_shape() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        weights = nn.Parameter(distribute_tensor(torch.ones(6, 3), mesh, [Shard(0)]))
        optimizer = oc.Adam([weights])
        moments = [distribute_tensor(torch.ones(6, 3), mesh, [Shard(0)]) for _ in range(2)]
        good = change(optimizer.state_dict(), "state", 0, to={})
        good["state"][0] = {"step": torch.tensor(1.0), "exp_avg": moments[0], "exp_avg_sq": moments[1]}
        optimizer.load_state_dict(good)
        wrong = good | {"state": {0: good["state"][0] | {"exp_avg": moments[0].to_local()}}}
        with pytest.raises(ValueError, match=r"has shape \(3, 3\), expected \(6, 3\)"):
            optimizer.load_state_dict(wrong)
    finally:
        torch.distributed.destroy_process_group()
