"""The compiled look says what its definition in Python says, whatever has become of the tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import torchopt_course as oc
from torchopt_course.engines.bucket import Bucket
from torchopt_course.engines.native import frame

from ..helpers import parameters, set_gradients

KINDS = ["vector", "matrix", "large", "scalar"]
Change = Callable[[nn.Parameter, oc.Adam], None]


def _data(param: nn.Parameter, _: oc.Adam) -> None:
    param.data = param.detach().clone()


def _strides(param: nn.Parameter, _: oc.Adam) -> None:
    if param.dim() > 1:  # the same shape, laid out otherwise
        param.data = param.detach().transpose(0, 1).contiguous().transpose(0, 1)


def _dtype(param: nn.Parameter, _: oc.Adam) -> None:
    param.data = param.detach().double()


def _state(param: nn.Parameter, optimizer: oc.Adam) -> None:
    optimizer.state[param]["exp_avg"] = optimizer.state[param]["exp_avg"].clone()


def _state_beside(param: nn.Parameter, optimizer: oc.Adam) -> None:
    optimizer.state[param]["before"] = optimizer.state[param]["exp_avg"]  # it lives on
    _state(param, optimizer)


def _state_shape(param: nn.Parameter, optimizer: oc.Adam) -> None:
    state = optimizer.state[param]["exp_avg"]
    if state.dim():  # the same strides
        state.data = state.new_zeros((len(state) + 1, *state.shape[1:]))


def _state_memory(param: nn.Parameter, optimizer: oc.Adam) -> None:
    optimizer.state[param]["exp_avg"].data = optimizer.state[param]["exp_avg_sq"].clone()


def _no_state(param: nn.Parameter, optimizer: oc.Adam) -> None:
    del optimizer.state[param]["exp_avg"]


def _order(param: nn.Parameter, optimizer: oc.Adam) -> None:
    optimizer.state[param] = optimizer.state.pop(param)


def _step(param: nn.Parameter, optimizer: oc.Adam) -> None:
    optimizer.state[param]["step"].fill_(50)


def _no_gradient(param: nn.Parameter, _: oc.Adam) -> None:
    param.grad = None


def _negated(param: nn.Parameter, _: oc.Adam) -> None:
    param.grad = torch._neg_view(torch.ones_like(param))


def _laid_out(param: nn.Parameter, _: oc.Adam) -> None:
    dims = tuple(reversed(range(param.dim())))
    param.grad = torch.ones(param.shape[::-1], dtype=param.dtype).permute(dims)


CHANGES: dict[str, Change] = {
    name[1:]: change
    for name, change in dict(globals()).items()
    if callable(change) and getattr(change, "__module__", "") == __name__ and name.startswith("_")
}


def verdict(bucket: Bucket, optimizer: oc.Adam, look: str) -> tuple[Any, ...]:
    params = optimizer.param_groups[0]["params"]
    guards = bucket.guards
    guards.table[:] = 0
    found = getattr(guards, look)(params, [param.grad for param in params], optimizer.state)
    present = guards.absent == 0
    written = [id(tensor) for tensor in guards.written]
    guards.written.clear()
    if found != frame.HOLDS:
        return (found,)
    return (
        found,
        guards.absent.tolist(),
        guards.table[present].tolist(),
        guards.ages[present].tolist(),
        written,
    )


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, len(KINDS) - 1)), max_size=3)
)
def test_the_compiled_look_is_what_its_definition_says(changes: list[tuple[str, int]]) -> None:
    params = parameters(KINDS)
    optimizer = oc.Adam(params, fused=True)
    for step in range(2):
        set_gradients(step, params)
        optimizer.step()
    bucket = copy.copy(optimizer._stepper.groups[0].buckets[0])
    set_gradients(2, params)
    for name, i in changes:
        if "exp_avg" in optimizer.state[params[i]]:
            CHANGES[name](params[i], optimizer)
    compiled = verdict(bucket, optimizer, "look")
    assert compiled == verdict(bucket, optimizer, "look_from_python")
    surely = {"dtype", "state", "state_beside", "no_state"}
    if any(name in surely and params[i].grad is not None for name, i in changes):
        assert compiled == (frame.CHANGED,)
    if not changes:
        assert compiled[0] == frame.HOLDS
        assert np.all(np.array(compiled[2]) != 0)


def test_without_an_exchange_table_steps_are_fused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older torch, or another one: Python looks, and the kernel is the same."""
    from torchopt_course.engines.native import step as native

    monkeypatch.setattr(native, "can_look", lambda: False)
    results = []
    for make in (oc.Adam, torch.optim.Adam):
        params = parameters(KINDS)
        optimizer = make(params, lr=0.1)  # type: ignore[operator]
        for step in range(4):
            set_gradients(step, params)
            optimizer.step()
        results.append(params)
        if make is oc.Adam:
            assert optimizer.engine_report().startswith("fused CPU engine: 4 parameters")
            assert optimizer._stepper.prepared is None
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
