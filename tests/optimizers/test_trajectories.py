"""Up to fifty steps, every option, every engine, every kind of tensor: the same numbers as torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ..helpers import (
    DENSE,
    KINDS,
    NAMES,
    Largest,
    assert_same,
    engines_used,
    every_engine,
    ours,
    parameters,
    set_gradients,
    theirs,
)

STEPS = 50


@st.composite
def options(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Options of an optimizer that torch accepts, the default of each among them."""

    def choose(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    lr = draw(st.floats(1e-4, 0.1))
    chosen: dict[str, Any] = {
        "lr": torch.tensor(lr) if draw(st.booleans()) and draw(st.booleans()) else lr,
        "weight_decay": choose(0, 0.02),
        "maximize": choose(False, True),
    }
    if name in ("SGD", "Momentum"):
        if name == "SGD":
            chosen["momentum"] = choose(0, 0.5, 0.9)
        chosen["nesterov"] = chosen.get("momentum", 0.9) > 0 and choose(False, True)
        chosen["dampening"] = 0 if chosen["nesterov"] else choose(0, 0.3)
    if name == "Adagrad":
        chosen |= {"lr_decay": choose(0, 0.1), "initial_accumulator_value": choose(0, 0.5)}
    if name == "RMSprop":
        chosen |= {"alpha": choose(0.99, 0.8), "momentum": choose(0, 0.9), "centered": choose(False, True)}
    if name in ("Adam", "AdamW"):
        chosen |= {"betas": choose((0.9, 0.999), (0.0, 0.5)), "amsgrad": choose(False, True)}
    if name == "Adam":
        chosen["decoupled_weight_decay"] = choose(False, True)
    if name not in ("SGD", "Momentum"):
        chosen["eps"] = choose(1e-8, 1e-3)
    return chosen


@every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("examples", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_equals_torch(name: str, dtype: torch.dtype, engine: dict[str, bool], examples: int) -> None:
    @settings(max_examples=examples)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        train_next_to_torch(name, dtype, engine, data)

    check()


def train_next_to_torch(name: str, dtype: torch.dtype, engine: dict[str, bool], data: st.DataObject) -> None:
    chosen = data.draw(options(name))
    if engine.get("foreach") and name in ("Adam", "AdamW"):
        chosen["lr"] = float(chosen["lr"])  # torch refuses tensors there, and so do we
    kinds = list(data.draw(st.permutations(DENSE if engine.get("fused") else KINDS)))
    cancels = chosen["weight_decay"] and name not in ("SGD", "Momentum") and dtype == torch.float32
    if cancels or not data.draw(st.sampled_from([False, False, True])):
        # Where gradient and decay cancel, an adaptive method takes a full step along the rounding error:
        # among 70,001 elements there always are some. And they cost as much as everything else.
        kinds = [kind for kind in kinds if kind != "large"]
    if chosen.get("centered") and dtype == torch.float32:
        # The variance of a single number is the difference of two almost equal ones: only noise is left.
        kinds = [kind for kind in kinds if kind not in ("scalar", "one")]
    scale = data.draw(st.sampled_from([1e-2, 1.0, 30.0]))
    expanded = data.draw(st.booleans())
    mine, reference = parameters(kinds, dtype), parameters(kinds, dtype)
    optimizer = ours(name)(mine, **chosen, **engine)
    other = theirs(name)(reference, **chosen, foreach=False)
    largest = Largest()
    for step in range(data.draw(st.sampled_from([8, 20, STEPS]))):
        set_gradients(step, mine, reference, scale=scale, expanded=expanded)
        optimizer.step()
        other.step()
        largest.note(reference, other)
    assert_same(mine, reference, optimizer, other, largest=largest)
    used = engines_used(optimizer)
    assert used["cpu"] == (len(kinds) if engine.get("fused") else 0), used
    assert used["foreach"] == (len(kinds) if engine.get("foreach") else 0), used


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_equals_torch_in_several_groups(name: str, engine: dict[str, bool]) -> None:
    """Groups have options of their own, and a parameter may get its first gradient late or skip some."""
    dtypes = [torch.float32, torch.float64]
    mine, reference = ([parameters(dtype=dtype) for dtype in dtypes] for _ in range(2))
    optimizer, other = (
        make([{"params": groups[0], "lr": 0.05}, {"params": groups[1], "weight_decay": 0.1}], lr=0.01)
        for make, groups in ((ours(name), mine), (theirs(name), reference))
    )
    optimizer.defaults |= engine
    for group in optimizer.param_groups:
        group.update(engine)
    for step in range(24):
        for twins in zip(mine, reference, strict=True):
            set_gradients(step, *twins)
            for late, params in enumerate(zip(*twins, strict=True)):
                if step < 2 * late or (step + late) % 7 == 0:
                    for param in params:
                        param.grad = None
        optimizer.step()
        other.step()
    for twins in zip(mine, reference, strict=True):
        assert_same(*twins, optimizer, other)


@pytest.mark.parametrize(
    "engine", [{}, {"fused": False}, {"foreach": True}], ids=["default", "eager", "foreach"]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.complex128], ids=str)
def test_other_dtypes(name: str, dtype: torch.dtype, engine: dict[str, bool]) -> None:
    mine, reference = (
        [torch.nn.Parameter(param.detach().to(dtype)) for param in parameters(["matrix", "transposed"])]
        for _ in range(2)
    )
    optimizer, other = ours(name)(mine, lr=0.01, **engine), theirs(name)(reference, lr=0.01, foreach=False)
    for step in range(10):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    tolerance = {torch.bfloat16: 0.02, torch.complex64: 2e-5, torch.complex128: 1e-10}[dtype]
    assert_same(mine, reference, optimizer, other, tolerance)
    fastest = "cpu" if dtype == torch.bfloat16 else "eager"
    taken = engines_used(optimizer)[
        {"fused": "eager", "foreach": "foreach"}.get(next(iter(engine), ""), fastest)
    ]
    assert taken == 2 or len(taken) == 2


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_goes_to_torch_and_back_in_mid_run(name: str, engine: dict[str, bool]) -> None:
    """torch -> ours -> torch -> ours, and the trajectory is that of torch alone."""
    extra = {"RMSprop": {"centered": True, "momentum": 0.5}, "Adam": {"amsgrad": True}}.get(name, {})
    mine, reference = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    other = theirs(name)(reference, lr=0.02, weight_decay=0.1, **extra)
    runner = theirs(name)(mine, lr=0.02, weight_decay=0.1, **extra)
    for step in range(40):
        if step in (10, 20, 30):
            make = theirs(name) if step == 20 else ours(name)
            # Other options on purpose: those of the checkpoint count.
            successor = make(mine, lr=1.0, **extra)
            successor.load_state_dict(runner.state_dict())
            for group in successor.param_groups:
                group.update(engine if step != 20 else {"fused": None})
            runner = successor
        set_gradients(step, mine, reference)
        runner.step()
        other.step()
    assert_same(mine, reference, runner, other)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_float64_steps_under_float64_default(name: str) -> None:
    """torch keeps ``step`` in the default dtype; so do we, and the fused engine reads it."""
    torch.set_default_dtype(torch.float64)
    mine, reference = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    optimizer, other = ours(name)(mine), theirs(name)(reference)
    for step in range(5):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)
    assert not engines_used(optimizer)["eager"]


@pytest.mark.parametrize("name", NAMES)
def test_differentiable(name: str) -> None:
    """Gradients flow through ten steps to the initial weights; finite differences agree."""

    def slope(weights: torch.Tensor) -> torch.Tensor:
        copy = weights.clone()  # step() changes the weights in place, autograd needs the old ones
        return torch.autograd.grad((copy**3 + copy).sum(), weights, create_graph=True)[0]

    def final(start: torch.Tensor) -> torch.Tensor:
        weights = start.clone()
        optimizer = ours(name)([weights], lr=0.1, differentiable=True)
        for _ in range(10):
            weights.grad = slope(weights)
            optimizer.step()
        return weights

    start = torch.tensor([0.5, -0.8, 1.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(final, start)
