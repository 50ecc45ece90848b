"""Checkpoints of states in 16 bits, and options that cannot be meant."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

import torchopt_course as oc

from ..helpers import every_engine, set_gradients
from .stored import (
    STORED,
    AdaMax,
    B,
    F,
    H,
    Lion,
    Plain,
    User,
    some_parameters,
    squares_in_float16,
    stepped,
    tensors_of,
)


@squares_in_float16
@every_engine
@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_a_resumed_run_is_the_same_run(
    dtype: torch.dtype, options: dict[str, Any], engine: dict[str, bool], tmp_path: Any
) -> None:
    params, optimizer = stepped(oc.Adam, dtype, steps=2, **options, **engine)
    torch.save(
        {"model": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "c.pt"
    )
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = [Parameter(tensor) for tensor in saved["model"]]
    another = oc.Adam(resumed, lr=0.01, **options, **engine)
    another.load_state_dict(saved["optimizer"])
    for step in range(2, 5):
        set_gradients(step, params, resumed)
        optimizer.step()
        another.step()
    for (name, got), (_, expected) in zip(
        tensors_of(resumed, another), tensors_of(params, optimizer), strict=True
    ):
        assert got.dtype == expected.dtype, name
        assert got.equal(expected), name


def test_checkpoints_between_precisions() -> None:
    params, torchs = some_parameters(B), some_parameters(B)
    other = torch.optim.Adam(torchs)
    set_gradients(0, torchs)
    other.step()
    optimizer = oc.Adam(params, state_dtype=F)
    optimizer.load_state_dict(other.state_dict())  # says nothing of precision: converted
    assert optimizer.state[params[0]]["exp_avg"].dtype == F
    assert optimizer.param_groups[0]["state_dtype"] == F
    optimizer.state[params[0]]["exp_avg"].fill_(1 + 2**-20)
    free = oc.Adam(some_parameters(B))
    free.load_state_dict(optimizer.state_dict())  # nothing asked for: as the checkpoint has it
    state = free.state[free.param_groups[0]["params"][0]]["exp_avg"]
    assert state.dtype == F
    assert (state == 1 + 2**-20).all(), "never cast to the parameter's dtype on the way"
    other.load_state_dict(optimizer.state_dict())
    assert other.state[torchs[0]]["exp_avg"].dtype == B
    for asked in ({"state_dtype": B}, {"state_dtype": {"exp_avg": F}}):
        with pytest.raises(
            ValueError, match=r"group 0 has state_dtype=torch.float32, the optimizer state_dtype="
        ):
            oc.Adam(some_parameters(B), **asked).load_state_dict(optimizer.state_dict())
    kahan = oc.Adam(some_parameters(B), rounding="kahan").state_dict()
    with pytest.raises(
        ValueError, match=r"group 0: rounding='kahan' is given, but no tensor of Adam has 16 bits"
    ):
        oc.Adam(some_parameters(F)).load_state_dict(kahan)
    with pytest.raises(ValueError, match="has rounding=kahan, the optimizer rounding=stochastic"):
        oc.Adam(some_parameters(B), rounding="stochastic").load_state_dict(kahan)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"state_dtype": "bfloat16"}, TypeError, "state_dtype is 'bfloat16', expected one of torch.float32"),
        ({"state_dtype": torch.int8}, ValueError, "state_dtype is torch.int8, expected one of"),
        ({"state_dtype": {"exp_avg": None}}, TypeError, r"state_dtype\['exp_avg'\] is None"),
        (
            {"state_dtype": {"momentum": B}},
            ValueError,
            "for 'momentum', but the states of Adam are 'exp_avg'",
        ),
        ({"rounding": "up"}, ValueError, "rounding is 'up', expected one of 'nearest'"),
        (
            {"rounding": "kahan"},
            ValueError,
            "no tensor of Adam has 16 bits: the parameters are torch.float32",
        ),
        ({"rounding": "stochastic", "state_dtype": F}, ValueError, "the states torch.float32; give"),
        (
            {"rounding": "kahan", "state_dtype": B, "differentiable": True},
            RuntimeError,
            "rounding='kahan' has no derivative",
        ),
        ({"rounding": "stochastic", "state_dtype": B, "capturable": True}, RuntimeError, "capturable"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        oc.Adam(some_parameters(F), **options)
    optimizer = oc.Adam(some_parameters(F))
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2))], **options})
    assert len(optimizer.param_groups) == 1


def test_more_bad_options() -> None:
    with pytest.raises(ValueError, match=r"state_dtype=torch.bfloat16 is given, but Plain keeps no states"):
        Plain([Parameter(torch.ones(2))], state_dtype=B)
    with pytest.raises(ValueError, match=r"but a parameter is of dtype torch.complex64"):
        oc.Adam([Parameter(torch.ones(2, dtype=torch.complex64))], state_dtype=B)
    with pytest.raises(ValueError, match=r"rounding_seed=3 is given, but rounding=None draws no random bits"):
        oc.Adam([{"params": [Parameter(torch.ones(2))], "rounding_seed": 3}])


class Surprise(User):
    """AdaBelief's second moment, by a power, and its root."""

    states = ("mean", "variance", "deviation")

    @staticmethod
    def rule(p: Any, g: Any, mean: Any, variance: Any, deviation: Any, lr: Any) -> Any:
        mean = 0.9 * mean + 0.1 * g
        variance = 0.9 * variance + 0.1 * (mean - g) ** 2
        return p - lr * mean / (xp.sqrt(variance) + 1e-8), mean, variance, xp.sqrt(variance)

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}


@pytest.mark.parametrize(
    ("make", "dtype", "options", "named"),
    [
        (oc.Adam, F, {"state_dtype": H}, ["exp_avg_sq"]),
        (oc.AdamW, F, {"state_dtype": H, "amsgrad": True}, ["exp_avg_sq", "max_exp_avg_sq"]),
        (oc.Adam, F, {"state_dtype": {"exp_avg": H}}, []),
        (oc.Adam, F, {"state_dtype": B}, []),
        (oc.Adam, H, {"rounding": "kahan"}, ["exp_avg_sq"]),
        (oc.Adam, H, {"state_dtype": {"exp_avg_sq": B}}, []),
        (oc.Adam, H, {}, []),  # as torch does it
        (oc.RMSprop, F, {"state_dtype": H, "centered": True, "maximize": True}, ["square_avg"]),
        (oc.Adagrad, F, {"state_dtype": H}, ["sum"]),
        (oc.Momentum, F, {"state_dtype": H}, []),
        (Lion, F, {"state_dtype": H}, []),
        (AdaMax, F, {"state_dtype": H}, []),
        (Surprise, F, {"state_dtype": H}, ["variance"]),
    ],
    ids=str,
)
def test_squares_that_would_be_kept_in_float16_are_named(
    make: Any, dtype: torch.dtype, options: dict[str, Any], named: list[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = make(some_parameters(dtype), **options)
        optimizer.add_param_group({"params": [Parameter(torch.ones(2, dtype=dtype))]})
    said = [str(each.message) for each in caught]
    for name, text in zip(2 * named, said, strict=True):
        assert f"will keep {name!r} in torch.float16" in text
        assert f"give state_dtype={{{name!r}: torch.bfloat16}}" in text
    assert {each.category for each in caught} <= {UserWarning}


@pytest.mark.parametrize(
    ("dtype", "edit", "error", "words"),
    [
        (B, {"rounding": "stochstic"}, ValueError, "rounding is 'stochstic', expected one of"),
        (F, {"rounding": "kahan"}, ValueError, "no tensor of Adam has 16 bits"),
        (F, {"state_dtype": "bfloat16"}, TypeError, "state_dtype is 'bfloat16', expected one of"),
        (F, {"state_dtype": torch.int8}, ValueError, "state_dtype is torch.int8, expected one of"),
        (F, {"state_dtype": {"momentum": B}}, ValueError, "for 'momentum', but the states of Adam are"),
        (B, {"rounding": "stochastic", "rounding_seed": "x"}, TypeError, "rounding_seed .* is 'x', expected"),
        (B, {"rounding": "stochastic", "rounding_step": None}, TypeError, "rounding_step .* is None, expect"),
    ],
    ids=str,
)
@every_engine
def test_a_bad_option_that_is_written_into_a_group_is_refused_before_anything_changes(
    dtype: torch.dtype, edit: dict[str, Any], error: type[Exception], words: str, engine: dict[str, bool]
) -> None:
    params, optimizer = stepped(oc.Adam, dtype, steps=2, **engine)
    before = [(name, tensor.clone()) for name, tensor in tensors_of(params, optimizer)]
    optimizer.param_groups[0].update(edit)
    set_gradients(2, params)
    with pytest.raises(error, match=words):
        optimizer.step()
    for (name, got), (_, expected) in zip(tensors_of(params, optimizer), before, strict=True):
        assert got.dtype == expected.dtype, name
        assert got.equal(expected), name


def test_rounding_may_be_changed_between_steps() -> None:
    params, optimizer = stepped(oc.Adam, B, steps=2, rounding="stochastic")
    for rounding, kept in (("kahan", 3), (None, 0), ("stochastic", 0)):
        optimizer.param_groups[0]["rounding"] = rounding
        set_gradients(2, params)
        optimizer.step()
        assert sum("compensation" in name for name in optimizer.state[params[0]]) == kept
