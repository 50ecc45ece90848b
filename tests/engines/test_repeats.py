"""A parameter that stands twice in a group: torch warns, and steps it twice; so do we, on every engine."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchopt_course as oc

from ..helpers import (
    ENGINES,
    assert_same,
    engines_used,
    every_engine,
    ours,
    parameters,
    set_gradients,
    theirs,
)
from ..twins import VARIANTS

pytestmark = pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
KINDS = ["vector", "matrix", "scalar"]


def test_torch_warns_and_so_do_we() -> None:
    shared = nn.Parameter(torch.ones(2))
    for make in (torch.optim.SGD, oc.SGD):
        for params in ([shared, shared], [("weight", shared), ("tied", shared)]):
            with pytest.warns(UserWarning, match="duplicate parameters"):
                make(params)
        with pytest.raises(ValueError, match="more than one parameter group"):
            make([{"params": [shared]}, {"params": [shared]}])


def pair(name: str, places: list[int], options: dict[str, Any], engine: dict[str, bool]) -> Any:
    """Ours and torch's for-loop, which is torch's default on a CPU, over parameters in these places."""
    both = [parameters(KINDS, torch.float64) for _ in range(2)]
    mine, reference = ([params[i] for i in places] for params in both)
    return *both, ours(name)(mine, **options, **engine), theirs(name)(reference, **options, foreach=False)


@settings(max_examples=40, deadline=None)
@given(
    specialization=st.sampled_from(VARIANTS),
    engine=st.sampled_from(list(ENGINES.values())),
    places=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    absent=st.lists(st.sets(st.integers(0, 2)), min_size=4, max_size=4),
)
def test_stepped_as_often_as_it_stands_there(
    specialization: tuple[str, dict[str, Any]],
    engine: dict[str, bool],
    places: list[int],
    absent: list[set[int]],
) -> None:
    """Also in its first step, where torch takes it for a first one each time, and if its gradient is late."""
    mine, reference, optimizer, other = pair(specialization[0], places, specialization[1], engine)
    for step in range(4):
        set_gradients(step, mine, reference)
        for i in absent[step]:
            mine[i].grad = reference[i].grad = None
        optimizer.step()
        other.step()
        assert_same(mine, reference, optimizer, other)


@every_engine
def test_checkpoints_reports_and_edits(engine: dict[str, bool]) -> None:
    mine, reference, optimizer, other = pair("Adam", [0, 1, 0], {}, engine)
    for step in range(6):
        if step == 2:  # torch to ours and back
            states = [copy.deepcopy(each.state_dict()) for each in (other, optimizer)]
            assert states[0]["param_groups"][0]["params"] == states[1]["param_groups"][0]["params"]
            optimizer.load_state_dict(states[0])
            other.load_state_dict(states[1])
            # torch's other implementations take the two steps at once, its for-loop one after the other.
            other.param_groups[0].update(foreach=False, fused=False)
            optimizer.param_groups[0].update({"foreach": None, "fused": None, **engine})
        if step == 4:  # one stands there no more, another a third time
            for each, params in ((optimizer, mine), (other, reference)):
                each.param_groups[0]["params"][2] = params[1]
                each.param_groups[0]["params"].append(params[1])
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        assert_same(mine, reference, optimizer, other)
        used = engines_used(optimizer)
        assert optimizer.engine_report().count("\n") == 0
        assert "2 parameters" in optimizer.engine_report(), used


def test_two_groups_that_were_edited_share_a_parameter() -> None:
    mine, reference, optimizer, other = pair("Momentum", [0, 1], {"lr": 0.1}, {})
    for each in (optimizer, other):
        each.param_groups.append({**each.param_groups[0], "lr": 0.01})
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        assert_same(mine, reference, optimizer, other)


def test_gradients_are_unscaled_once() -> None:
    """What GradScaler leaves to an optimizer with fused=True."""
    mine, reference, optimizer, other = pair("Adam", [0, 0, 1], {}, {"fused": True})
    for step in range(3):
        set_gradients(step, mine, reference)
        for param in mine:
            param.grad.mul_(8.0)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(float(step == 1))
        optimizer.step()
        if step != 1:
            other.step()
        assert_same(mine, reference, optimizer, other)


def test_no_warning_for_what_stands_there_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        oc.SGD(parameters(KINDS))


@settings(max_examples=60, deadline=None)
@given(
    specialization=st.sampled_from(VARIANTS),
    engine=st.sampled_from([{}, ENGINES["foreach"], ENGINES["eager"]]),
    views=st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 8), st.integers(1, 2)), min_size=2, max_size=5
    ),
    cut=st.integers(0, 5),
)
def test_views_of_one_storage_are_stepped_one_after_the_other(
    specialization: tuple[str, dict[str, Any]],
    engine: dict[str, bool],
    views: list[tuple[int, int, int]],
    cut: int,
) -> None:
    """Tied by memory instead of by object, in one group or two."""
    name, options = specialization
    results = []
    for make, how in ((ours(name), engine), (theirs(name), {"foreach": False})):
        base = torch.linspace(1, 2, 16, dtype=torch.float64)
        params = [nn.Parameter(base[start : start + size : step]) for start, size, step in views]
        groups = [{"params": part} for part in (params[:cut], params[cut:]) if part]
        optimizer = make(groups, **options, **how)
        for step in range(3):
            for i, param in enumerate(params):
                param.grad = torch.full_like(param, 0.1 * (i + 1) + step)
            optimizer.step()
        results.append(base)
    torch.testing.assert_close(*results)


def test_report_names_views_of_one_storage() -> None:
    base = torch.ones(4)
    params = [nn.Parameter(base), nn.Parameter(base[1:])]
    optimizer = oc.SGD(params, lr=0.1)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert "2 parameters, 7 elements" in optimizer.engine_report()


@every_engine
def test_parameters_that_come_to_share_memory_between_two_steps(engine: dict[str, bool]) -> None:
    mine, reference = ([nn.Parameter(torch.ones(4) + i) for i in range(3)] for _ in range(2))
    optimizers = oc.Adam(mine, lr=0.1, **engine), torch.optim.Adam(reference, lr=0.1, foreach=False)
    for step in range(4):
        if step == 2:
            for params in (mine, reference):
                params[1].data = params[0].data
        set_gradients(step, mine, reference)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(mine, reference, *optimizers)
