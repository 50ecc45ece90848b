"""``state_dtype`` and ``rounding``: the same numbers on each engine, and how many bytes they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.native import step as native

from ..helpers import ENGINES, NAMES, engines_used, every_engine, ours, set_gradients, theirs
from .stored import (
    OPTIMIZERS,
    STORED,
    B,
    F,
    H,
    assert_same_tensors,
    some_parameters,
    squares_in_float16,
    stepped,
    tensors_of,
)

# Each way of storing with Adam, each optimizer in two; all of them with all in `make test-slow`.
CASES = [
    pytest.param(name, *stored, marks=() if name == "Adam" or i in (2, 6) else pytest.mark.slow)
    for name in OPTIMIZERS
    for i, stored in enumerate(STORED)
    if OPTIMIZERS[name].states or "state_dtype" not in stored[1]
]


@squares_in_float16
@pytest.mark.parametrize(("name", "dtype", "options"), CASES, ids=str)
def test_the_same_numbers_and_bytes_on_each_engine(
    name: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    case = OPTIMIZERS[name]
    mine = stepped(case.make, dtype, **options, **case.options)
    assert engines_used(mine[1])["cpu"] == 2
    others = {}
    for engine in ("foreach", "eager"):
        others[engine] = stepped(case.make, dtype, **options, **case.options, **ENGINES[engine])
        assert engines_used(others[engine][1])["cpu"] == 0
        assert_same_tensors(mine, others[engine], engine)
    kept = options.get("state_dtype", dtype)
    halves = (dtype in (B, H)) + case.states * (kept in (B, H))
    expected = case.states * kept.itemsize + 2 * halves * (options.get("rounding") == "kahan")
    for params, optimizer in (mine, *others.values()):
        for param in params:
            assert bytes_of_states(optimizer, param) == expected * param.numel()


def bytes_of_states(optimizer: Any, param: Parameter) -> int:
    states = optimizer.state.get(param, {})
    assert all(state.stride() == param.stride() for key, state in states.items() if key != "step")
    return sum(state.nbytes for key, state in states.items() if key != "step")


@every_engine
@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (F, {"state_dtype": {"exp_avg": B}}, 6),
        (B, {"state_dtype": {"exp_avg_sq": F}, "rounding": "kahan"}, 10),
        (F, {}, 8),
    ],
    ids=str,
)
def test_bytes_where_states_differ(
    dtype: torch.dtype, options: dict[str, Any], expected: int, engine: dict[str, bool]
) -> None:
    params, optimizer = stepped(oc.Adam, dtype, steps=2, **options, **engine)
    for param in params:
        assert bytes_of_states(optimizer, param) == expected * param.numel()


def test_16_bit_states_are_torchs_step_rounded_once() -> None:
    """From the same numbers, torch's step of float32: parameters the same, states rounded."""
    params = some_parameters(F)
    optimizer = oc.Adam(params, lr=0.1, state_dtype=B)
    for step in range(5):
        twins = [Parameter(param.detach().clone()) for param in params]
        other = torch.optim.Adam(twins, lr=0.1, foreach=False)
        for param, twin in zip(params, twins, strict=True):
            for key, value in optimizer.state.get(param, {}).items():
                other.state[twin][key] = value.clone().float()
        set_gradients(step, params, twins)
        optimizer.step()
        other.step()
        for param, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-6)
            for key in ("exp_avg", "exp_avg_sq"):
                expected = other.state[twin][key]
                wrong = (
                    optimizer.state[param][key] != expected.to(B)
                ).sum()  # ties, where the last place decides
                assert wrong <= 1, key


@pytest.mark.parametrize(
    ("dtype", "options"), [(B, {"rounding": "stochastic"}), (F, {"state_dtype": B})], ids=str
)
def test_threads_change_nothing(dtype: torch.dtype, options: dict[str, Any]) -> None:
    native.make_ready()  # which shares the work among threads
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        param = Parameter(torch.ones(100_003, dtype=dtype))
        optimizer = oc.Adam([param], lr=1e-4, **options)
        for _ in range(2):
            param.grad = torch.linspace(-1, 1, 100_003).to(dtype)
            optimizer.step()
        results.append(tensors_of([param], optimizer))
    for (name, got), (_, expected) in zip(*results, strict=True):
        assert got.equal(expected), name


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_added_for_who_does_not_ask(name: str) -> None:
    params, twins = some_parameters(F), some_parameters(F)
    optimizer, other = ours(name)(params), theirs(name)(twins)
    assert optimizer.defaults == other.defaults
    assert set(optimizer.param_groups[0]) == set(other.param_groups[0])


def test_an_option_that_is_changed_between_steps() -> None:
    params, optimizer = stepped(oc.Adam, F, steps=2)
    optimizer.param_groups[0]["state_dtype"] = B
    set_gradients(2, params)
    optimizer.step()
    assert {v.dtype for k, v in optimizer.state[params[0]].items() if k != "step"} == {B}
    assert engines_used(optimizer)["cpu"] == 2


def test_sparse_gradients_update_their_rows() -> None:
    for options in ({"state_dtype": B}, {"state_dtype": B, "rounding": "kahan"}):
        sparse, dense = (Parameter(torch.ones(4, 3)) for _ in range(2))
        grad = torch.zeros(4, 3)
        grad[1] = 0.3
        for param, value in ((sparse, grad.to_sparse(1)), (dense, grad)):
            optimizer = oc.Adagrad([param], lr=0.1, **options)
            for _ in range(3):
                param.grad = value
                optimizer.step()
        torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "options", [{}, {"state_dtype": "8bit"}, {"state_dtype": B, "rounding": "kahan"}], ids=str
)
def test_shared_memory_has_all_of_a_state(options: dict[str, Any]) -> None:
    param = Parameter(torch.ones(5000))
    optimizer = oc.Adagrad([param], **options)
    optimizer.share_memory()
    for name, tensor in optimizer.state[param].items():
        assert tensor.is_shared() == (name != "step"), name
