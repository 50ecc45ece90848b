"""A wrong state_dict is refused in words that name the difference, and the optimizer stays as it was.

What is not wrong, though it looks unusual, must still load: older versions, relatives, other ids and dtypes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchopt_course as oc

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs
from .test_write_your_own import Lion

KINDS = ["vector", "matrix", "scalar"]
StateDict = dict[str, Any]


def stepped(make: Callable[..., torch.optim.Optimizer], *groups: list[str], **options: Any) -> Any:
    """An optimizer after two steps, its parameters named after their kind."""
    sizes = groups or (KINDS,)
    params = [parameters(kinds) for kinds in sizes]
    named = [
        {"params": list(zip(kinds, group, strict=True))} for kinds, group in zip(sizes, params, strict=True)
    ]
    optimizer = make(named, **options)
    for step in range(2):
        for group in params:
            set_gradients(step, group)
        optimizer.step()
    return optimizer


def checkpoint(make: Callable[..., torch.optim.Optimizer], *groups: list[str], **options: Any) -> StateDict:
    return copy.deepcopy(stepped(make, *groups, **options).state_dict())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Everything in nested dictionaries and lists, one by one."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        if isinstance(item, Mapping | list):
            yield from leaves(item, (*path, key))
        else:
            yield (*path, key), item


def assert_unchanged(before: StateDict, after: StateDict) -> None:
    old, new = dict(leaves(before)), dict(leaves(after))
    assert list(old) == list(new)
    for path, value in old.items():
        same = torch.equal(value, new[path]) if isinstance(value, torch.Tensor) else value == new[path]
        assert same, path


def assert_refused(optimizer: Any, wrong: Any, error: type[Exception], *words: str) -> None:
    """The error's type and words are these, and neither the optimizer nor the checkpoint has changed."""
    before, state, groups = copy.deepcopy(optimizer.state_dict()), optimizer.state, optimizer.param_groups
    given = copy.deepcopy(wrong)
    with pytest.raises(error) as raised:
        optimizer.load_state_dict(wrong)
    assert type(raised.value) is error
    for word in words:
        assert word in str(raised.value), str(raised.value)
    assert optimizer.state is state
    assert optimizer.param_groups is groups
    assert_unchanged(before, optimizer.state_dict())
    if isinstance(wrong, Mapping):
        assert_unchanged(given, wrong)
    optimizer.step()  # and it goes on


def change(state_dict: StateDict, *path: Any, to: Any = None) -> StateDict:
    """A copy of a checkpoint with one thing in it replaced, or left out."""
    changed = copy.deepcopy(state_dict)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return changed


class LBFGS(torch.optim.LBFGS):
    """It wants a closure, and has a state unlike that of all others."""

    def step(self, closure: Any = None) -> Any:
        params = self.param_groups[0]["params"]
        return super().step(lambda: torch.stack([(param * param.grad).sum() for param in params]).sum())


def family(name: str) -> Callable[..., torch.optim.Optimizer]:
    own: dict[str, Callable[..., torch.optim.Optimizer]] = {"Lion": Lion, "LBFGS": LBFGS}
    return own.get(name) or theirs(name)


# -- refused -------------------------------------------------------------------------------------------

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


# -- hooks come first --------------------------------------------------------------------------------------


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


# -- not foreign: loads, and goes on as torch does ----------------------------------------------------------


def goes_on(name: str, saved: StateDict, **options: Any) -> None:
    """Ours and torch's load the same checkpoint, under other options, and take the same steps."""
    mine, reference = parameters(KINDS), parameters(KINDS)
    optimizer, other = ours(name)(mine, lr=1.0, **options), theirs(name)(reference, lr=1.0, **options)
    other.load_state_dict(copy.deepcopy(saved))
    optimizer.load_state_dict(saved)
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)


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


# -- any of torch's checkpoints, edited anyhow ---------------------------------------------------------------

ODD = st.sampled_from(
    [None, 0, -1, 1.5, "x", [], {}, (), [0], ["a"], {"a": 1}, torch.ones(2), torch.tensor(1.0)]
)
LEFT_OUT = object()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["SGD", "Adagrad", "RMSprop", "Adam"]), st.data())
def test_edited_anyhow(name: str, data: st.DataObject) -> None:
    """It is loaded and goes on as in torch, or refused in words of ours: never an error from inside."""
    saved = checkpoint(theirs(name), ["vector", "matrix"])
    paths = [path for path, _ in leaves(saved)]
    paths += [path[:n] for path in paths for n in range(1, len(path))]
    path = data.draw(st.sampled_from(list(dict.fromkeys(paths))))
    value = data.draw(st.just(LEFT_OUT) | ODD)
    inner: Any = saved
    for key in path[:-1]:
        inner = inner[key]
    if value is LEFT_OUT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
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
            torch.testing.assert_close(param, twin, rtol=2e-5, atol=2e-5)


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
