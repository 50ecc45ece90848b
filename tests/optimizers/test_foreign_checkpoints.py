"""What is not wrong, though it looks unusual, loads: older versions, relatives, other ids and dtypes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchopt_course as oc

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs
from .checkpoints import KINDS, StateDict, assert_unchanged, change, checkpoint, family, goes_on, stepped
from .test_write_your_own import Lion


@pytest.mark.parametrize(
    ("name", "before", "options"),
    [
        ("SGD", "SGD", {}),
        ("Momentum", "SGD", {}),
        ("SGD", "SGD", {"momentum": 0.9}),
        ("Momentum", "SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adagrad", "Adagrad", {"initial_accumulator_value": 0.5}),
        ("RMSprop", "RMSprop", {}),
        ("RMSprop", "RMSprop", {"centered": True, "momentum": 0.9}),
        ("Adam", "AdamW", {}),
        ("Adam", "Adam", {"amsgrad": True}),
        ("AdamW", "Adam", {}),
        ("AdamW", "AdamW", {"amsgrad": True}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_family_loads_with_other_options(name: str, before: str, options: dict[str, Any]) -> None:
    goes_on(name, checkpoint(theirs(before), **options))


@pytest.mark.parametrize("option", ["momentum", "centered", "amsgrad"])
def test_optional_state_begins_anew_when_its_option_is_switched_on(option: str) -> None:
    name = {"momentum": "SGD", "centered": "RMSprop", "amsgrad": "Adam"}[option]
    saved = checkpoint(theirs(name))
    if option == "momentum":
        saved["state"] = {i: {"momentum_buffer": None} for i in range(3)}  # as older versions of torch did
    optimizer = ours(name)(parameters(KINDS))
    optimizer.load_state_dict(saved)
    optimizer.param_groups[0][option] = 0.9
    set_gradients(0, optimizer.param_groups[0]["params"])
    optimizer.step()
    assert optimizer._kept_states(optimizer.param_groups[0])[-1] in optimizer.state_dict()["state"][0]


NEWER = {  # what the first version of torch that had the optimizer did not know
    "SGD": ["nesterov", "maximize", "foreach", "differentiable", "fused"],
    "Adagrad": ["foreach", "maximize", "differentiable", "fused"],
    "RMSprop": ["momentum", "centered", "foreach", "maximize", "capturable", "differentiable"],
    "Adam": ["amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused",
             "decoupled_weight_decay"],
    "AdamW": ["amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused",
              "decoupled_weight_decay"],
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
@pytest.mark.parametrize(
    "step", [float, int, np.int64, lambda step: step.reshape(1)], ids=["float", "int", "numpy", "1-d"]
)
def test_checkpoint_of_an_old_version(name: str, step: Callable[[Any], Any]) -> None:
    """Options are missing, a scheduler has left its own, ``step`` is a number."""
    saved = checkpoint(theirs(name))
    for option in NEWER[name]:
        del saved["param_groups"][0][option]
    saved["param_groups"][0] |= {"initial_lr": 0.1, "max_lr": 1.0, "base_momentum": 0.8, "swa_lr": 0.05}
    for entry in saved["state"].values():
        if "step" in entry:
            entry["step"] = step(entry["step"])
    goes_on(name, saved)


def test_one_element_step_of_any_shape_counts() -> None:
    saved = checkpoint(torch.optim.Adam)
    optimizer = oc.Adam(parameters(KINDS))
    optimizer.load_state_dict(change(saved, "state", 2, "step", to=torch.full((1, 1), 5.0)))
    set_gradients(0, optimizer.param_groups[0]["params"])
    optimizer.step()
    assert [float(entry["step"]) for entry in optimizer.state.values()] == [3, 3, 6]


def test_options_of_one_who_adds_keys_to_groups() -> None:
    """Of a scheduler, or a newer version: with all states there, they are only carried along."""
    saved = checkpoint(torch.optim.Adam)
    del saved["param_groups"][0]["decoupled_weight_decay"]
    saved["param_groups"][0]["layer_decay"] = 0.75
    optimizer = oc.Adam(parameters(KINDS))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["layer_decay"] == 0.75
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is False
    without_states = checkpoint(torch.optim.SGD)
    without_states["param_groups"][0]["layer_decay"] = 0.75
    stepped(oc.SGD).load_state_dict(without_states)


# What optimizers that wrap another write into its groups and states.
WRAPPERS: dict[str, tuple[StateDict, list[str]]] = {
    "SAM": ({"rho": 0.05, "adaptive": False}, ["old_p"]),
    "Lookahead": ({"la_alpha": 0.5, "la_steps": 6, "counter": 3}, ["cached_params", "slow_buffer"]),
    "averaging": ({"n_avg": 2, "average_decay": 0.99}, ["average"]),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [*NAMES, "Lion"])
def test_checkpoint_of_a_wrapper_loads_into_the_bare_optimizer(name: str, wrapper: str) -> None:
    """As in torch: what the formula does not know is carried along."""
    saved = checkpoint(family(name))
    options, states = WRAPPERS[wrapper]
    saved["param_groups"][0] |= options
    for i, param in enumerate(parameters(KINDS)):
        saved["state"].setdefault(i, {}).update({state: param.detach().clone() for state in states})
    if name == "Lion":
        optimizer = Lion(parameters(KINDS))
        optimizer.load_state_dict(saved)
    else:
        goes_on(name, copy.deepcopy(saved))
        optimizer = ours(name)(parameters(KINDS))
        optimizer.load_state_dict(saved)
    assert_unchanged(saved["state"], optimizer.state_dict()["state"])
    assert options.items() <= optimizer.param_groups[0].items()


@pytest.mark.parametrize("nothing", [None, {}], ids=["None", "empty"])
@pytest.mark.parametrize("name", ["Momentum", "RMSprop", "Adam"])
def test_parameters_without_state(name: str, nothing: Any) -> None:
    """One had no gradient yet, of another the state is with another process."""
    saved = checkpoint(theirs(name))
    first = saved["state"].pop(0)
    mine, reference = parameters(KINDS), parameters(KINDS)
    optimizer, other = ours(name)(mine), theirs(name)(reference)
    other.load_state_dict(copy.deepcopy(saved))
    optimizer.load_state_dict(saved | {"state": saved["state"] | {0: nothing}})
    set_gradients(0, mine, reference)
    optimizer.step()
    other.step()
    assert_same(mine, reference, optimizer, other)
    assert set(optimizer.state[mine[0]]) == set(first)


def test_ids_may_be_names_dtypes_and_devices_others() -> None:
    """Distributed checkpoints call parameters by their names; tensors come in any floating dtype."""
    saved = checkpoint(torch.optim.Adam)
    named: StateDict = {
        "state": {
            name: {key: value.double() if key != "step" else value for key, value in entry.items()}
            for name, entry in zip(KINDS, saved["state"].values(), strict=True)
        },
        "param_groups": [saved["param_groups"][0] | {"params": KINDS}],
    }
    goes_on("Adam", named)
    on_meta = change(saved, "state", 1, "exp_avg", to=torch.ones(5, 3, device="meta"))
    params = parameters(KINDS)
    with torch.device("meta"):
        params[1] = nn.Parameter(torch.ones(5, 3))
    optimizer = oc.Adam(params)
    optimizer.load_state_dict(on_meta)
    assert optimizer.state[params[1]]["exp_avg_sq"].is_meta


class Averaging(oc.Adam):
    """A user's subclass that keeps a state of its own, for each parameter from the start and one for all."""

    def __init__(self, params: Any, decay: float = 0.5) -> None:
        super().__init__(params)
        self.param_groups[0]["average_decay"] = decay
        for param in self.param_groups[0]["params"]:
            self.state[param]["average"] = torch.zeros(())  # not of the parameter's shape
        self.state["seen"] = 0  # type: ignore[index]


class LazilyAveraging(oc.Adam):
    """The same from the first step on, also for parameters that have no gradient yet."""

    def __init__(self, params: Any) -> None:
        super().__init__([{"params": params, "average_decay": 0.5}])

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for param in self.param_groups[0]["params"]:
            self.state[param]["average"] = param.detach().mean()
        return loss


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("make", [Averaging, LazilyAveraging])
def test_subclass_keeps_states_of_its_own(make: Callable[..., Any], steps: int) -> None:
    optimizer = make(parameters(KINDS))
    for step in range(steps):
        set_gradients(step, optimizer.param_groups[0]["params"][:2])
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    fresh = make(parameters(KINDS))
    fresh.load_state_dict(saved)
    assert_unchanged(saved, fresh.state_dict())
    fresh.step()
