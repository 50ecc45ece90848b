"""Checkpoints of a rule for whole tensors: its states keep their dtypes; a bad one changes nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from .shampoo import Shampoo, parameters, run


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_checkpoint_copies_and_pickles_go_on(dtype: torch.dtype) -> None:
    """torch would bring all floating states to the parameter's dtype, bfloat16."""
    params = parameters(dtype)
    optimizer = Shampoo(params)
    run(optimizer, range(3))
    twins = [Parameter(p.detach().clone()) for p in params]
    loaded = Shampoo(twins)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert loaded.state[twins[0]]["left"].dtype == torch.float64
    assert loaded.state[twins[0]]["largest"].dtype == torch.float32
    assert loaded.state[twins[0]]["count"].dtype == torch.int64
    others = [loaded, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    for each in (optimizer, *others):
        run(each, range(3, 6))
    for other in others:
        for param, twin in zip(params, other.param_groups[0]["params"], strict=True):
            assert torch.equal(param, twin)
            for name, state in optimizer.state[param].items():
                assert torch.equal(state, other.state[twin][name]), name


def test_checkpoint_in_another_precision_is_loaded_into_that_which_states_begin_with() -> None:
    saved = Shampoo(parameters())
    run(saved, range(2))
    checkpoint = copy.deepcopy(saved.state_dict())
    for entry in checkpoint["state"].values():
        entry["largest"] = entry["largest"].double()
    params = parameters(torch.bfloat16)
    loaded = Shampoo(params)
    loaded.load_state_dict(checkpoint)
    assert loaded.state[params[0]]["largest"].dtype == torch.float32
    assert torch.equal(
        loaded.state[params[0]]["left"], saved.state[saved.param_groups[0]["params"][0]]["left"]
    )


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (lambda entry: entry.pop("left"), KeyError, "parameter 0 of group 0 has no 'left'"),
        (
            lambda entry: entry.update(left=torch.eye(3)),
            ValueError,
            r"'left'.*shape \(3, 3\), expected \(4, 4\)",
        ),
        (
            lambda entry: entry.update(count=torch.tensor(1.5)),
            ValueError,
            "'count'.*float32.*cannot become torch.int64",
        ),
        (lambda entry: entry.update(left=3.0), TypeError, "'left'.*must be a tensor, got float"),
    ],
)
def test_bad_checkpoints_are_refused_and_change_nothing(
    edit: Any, error: type[Exception], match: str
) -> None:
    optimizer = Shampoo(parameters())
    run(optimizer, range(2))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    edit(checkpoint["state"][0])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(error, match=match):
        optimizer.load_state_dict(checkpoint)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_a_vector_with_a_state_of_matrices_is_refused() -> None:
    optimizer = Shampoo(parameters())
    run(optimizer, range(2))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    checkpoint["state"][1]["left"] = torch.eye(5)
    with pytest.raises(ValueError, match=r"'left' of parameter 1.*\(5,\) keeps no such state"):
        optimizer.load_state_dict(checkpoint)
