"""What torch rejects is rejected with torch's error type, the value is named, and nothing is half-done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc

from ..helpers import every_engine, ours, parameters, set_gradients, theirs

BOTH = [
    ("SGD", {"lr": -0.5}, "-0.5"),
    ("SGD", {"momentum": -0.1}, "-0.1"),
    ("SGD", {"weight_decay": -1.0}, "-1.0"),
    ("SGD", {"nesterov": True}, "momentum=0"),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening=0.1"),
    ("SGD", {"lr": torch.ones(2)}, "1-element"),
    ("SGD", {"lr": "0.1"}, "0.1"),
    ("Momentum", {"momentum": -0.2}, "-0.2"),
    ("Adagrad", {"lr": -1}, "-1"),
    ("Adagrad", {"lr_decay": -0.5}, "-0.5"),
    ("Adagrad", {"weight_decay": -0.5}, "-0.5"),
    ("Adagrad", {"initial_accumulator_value": -2}, "-2"),
    ("Adagrad", {"eps": -1e-3}, "-0.001"),
    ("Adagrad", {"eps": math.nan}, "nan"),
    ("RMSprop", {"lr": -1}, "-1"),
    ("RMSprop", {"alpha": -0.1}, "-0.1"),
    ("RMSprop", {"eps": -1e-3}, "-0.001"),
    ("RMSprop", {"momentum": -1.0}, "-1.0"),
    ("RMSprop", {"weight_decay": -1.0}, "-1.0"),
    ("Adam", {"lr": -1}, "-1"),
    ("Adam", {"lr": math.nan}, "nan"),
    ("Adam", {"eps": -1.0}, "-1.0"),
    ("Adam", {"betas": (1.0, 0.9)}, "index 0: 1.0"),
    ("Adam", {"betas": (0.9, -0.1)}, "index 1: -0.1"),
    ("Adam", {"betas": (0.9, 0)}, "both floats or both Tensors"),
    ("Adam", {"betas": (0.9, torch.tensor(0.9))}, "both floats or both Tensors"),
    ("Adam", {"weight_decay": -0.1}, "-0.1"),
    ("Adam", {"lr": torch.tensor(0.1), "foreach": True}, "lr as a Tensor"),
    ("Adam", {"fused": True, "foreach": True}, "fused"),
    ("Adam", {"fused": True, "differentiable": True}, "differentiable"),
    ("SGD", {"fused": True, "differentiable": True}, "differentiable"),
    ("AdamW", {"betas": (0.9, 1.5)}, "1.5"),
]


@pytest.mark.parametrize(("name", "options", "named"), BOTH, ids=lambda x: str(x)[:40])
def test_options_that_torch_rejects(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception) as torchs:  # noqa: PT011
        theirs(name)(parameters(["vector"]), **options)
    with pytest.raises(type(torchs.value)) as error:
        ours(name)(parameters(["vector"]), **options)
    assert type(error.value) is type(torchs.value)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("name", "option"),
    [("SGD", "lr"), ("SGD", "momentum"), ("SGD", "weight_decay"), ("SGD", "dampening"), ("RMSprop", "alpha")],
)
def test_nan_passes_torch_but_not_us(name: str, option: str) -> None:
    with pytest.raises(ValueError, match="nan"):
        ours(name)(parameters(["vector"]), **{option: math.nan})


def test_options_of_a_group_are_checked_too() -> None:
    params = parameters(["vector", "matrix"])
    with pytest.raises(ValueError, match=r"-3"):
        oc.Adam([{"params": params, "lr": -3}])
    optimizer = oc.Adam(params[:1])
    with pytest.raises(ValueError, match=r"1\.5"):
        optimizer.add_param_group({"params": params[1:], "betas": (0.9, 1.5)})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "make",
    [
        list,
        lambda: torch.ones(2),
        lambda: ["weights"],
        lambda: "weights",
        lambda: [None, None],
        lambda: [{"params": [None]}],
        lambda: [{"params": None}],
        lambda: [{"params": "weights"}],
        lambda: [nn.Parameter(torch.ones(2)), {"params": []}],
        lambda: [{"params": []}, nn.Parameter(torch.ones(2))],
        lambda: [("weight", None)],
        lambda: [nn.Parameter(torch.ones(2)) * 2],
        lambda: [{"params": {nn.Parameter(torch.ones(2))}}],
        lambda: [{"params": [nn.Parameter(torch.ones(2)), ("bias", nn.Parameter(torch.ones(2)))]}],
        lambda: [{"lr": 0.1}],
        lambda: None,
    ],
    ids=[
        "none",
        "a tensor",
        "not tensors",
        "text",
        "two None",
        "None in a group",
        "group of None",
        "group of text",
        "a group later",
        "a group before",
        "a name of None",
        "no leaf",
        "a set",
        "half named",
        "no params",
        "None",
    ],
)
def test_params_that_torch_rejects(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)) as torchs:
        torch.optim.Adam(make())
    with pytest.raises(type(torchs.value)):
        oc.Adam(make())


def test_group_without_params_is_named() -> None:
    with pytest.raises(KeyError, match="a parameter group needs 'params', got 'lr'"):
        oc.Adam([{"lr": 0.1}])


def resize(param: nn.Parameter) -> None:
    grad = param.grad
    param.grad = None
    param.requires_grad_(False).resize_(9, 9).requires_grad_(True)
    param.grad = torch.ones(9, 9) if grad is not None else None


def take_memory_away(tensor: torch.Tensor) -> None:
    tensor.untyped_storage().resize_(0)


def wrong_gradient(grad: torch.Tensor) -> Any:
    """torch refuses to assign such a gradient, but replacing the data afterwards gets it past."""

    def change(param: nn.Parameter) -> None:
        good = param.data
        param.grad = None
        param.data = torch.empty_like(grad)
        param.grad = grad
        param.data = good

    return change


BAD = {
    "shape": (wrong_gradient(torch.ones(2, 2)), "shape"),
    "dtype": (wrong_gradient(torch.ones(5, 3, dtype=torch.float64)), "dtype"),
    "sparse": (lambda param: setattr(param, "grad", torch.ones(5, 3).to_sparse()), "sparse"),
    "resized": (resize, "shape"),
    "emptied": (take_memory_away, "memory"),
    "gradient emptied": (lambda param: take_memory_away(param.grad), "memory"),
}


@every_engine
@pytest.mark.parametrize(
    ("name", "bad", "stepped"),
    [
        (name, bad, stepped)
        for name in ["Momentum", "Adagrad", "RMSprop", "Adam", "AdamW"]
        for bad in BAD
        for stepped in (False, True)
        # Without a state there is nothing that a new shape could contradict.
        if (bad != "resized" or stepped or name == "Adagrad")
        and (bad != "sparse" or name in ("RMSprop", "Adam", "AdamW"))
    ],
)
def test_bad_gradient_leaves_everything_as_it_was(
    name: str, engine: dict[str, bool], bad: str, stepped: bool
) -> None:
    """The bad one is last, in a second group: nothing before it may have been stepped."""
    good, broken = parameters(["vector", "matrix"]), parameters(["matrix"])
    optimizer = ours(name)([{"params": good}, {"params": broken}], **engine)
    if stepped:
        set_gradients(0, [*good, *broken])
        optimizer.step()
    set_gradients(1, [*good, *broken])
    change, word = BAD[bad]
    change(broken[0])
    before = [param.detach().clone() for param in good]
    states = {k: {n: v.clone() for n, v in s.items()} for k, s in optimizer.state_dict()["state"].items()}
    with pytest.raises(RuntimeError, match=f"group 1.*{word}|{word}.*group 1"):
        optimizer.step()
    assert all(torch.equal(param, old) for param, old in zip(good, before, strict=True))
    after = optimizer.state_dict()["state"]
    assert {k: set(s) for k, s in after.items() if s} == {k: set(s) for k, s in states.items() if s}
    assert all(torch.equal(after[k][n], v) for k, s in states.items() for n, v in s.items())

    broken[0].grad = None
    broken[0].data = torch.zeros(5, 3)
    broken[0].grad = torch.ones(5, 3)
    optimizer.step()  # and it goes on once the gradient is right
    assert not torch.equal(good[0].detach(), before[0])


def test_fused_says_why_not() -> None:
    params = [nn.Parameter(torch.ones(3, dtype=torch.complex64))]
    optimizer = oc.Adam(params, fused=True)
    params[0].grad = torch.ones(3, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0: .*complex64"):
        optimizer.step()
    sliced = nn.Parameter(torch.ones(4, 6)[:, ::2])
    sliced.grad = torch.ones(4, 3)
    with pytest.raises(RuntimeError, match="not next to one another"):
        oc.SGD([sliced], fused=True).step()


def test_dampening_counts_from_the_first_real_step_after_an_error() -> None:
    """A step that failed must not use up the special first step of momentum."""
    mine, reference = parameters(["vector", "matrix"]), parameters(["vector", "matrix"])
    options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}
    optimizer, other = oc.SGD(mine, **options), torch.optim.SGD(reference, **options)
    set_gradients(0, mine)
    wrong_gradient(torch.ones(5, 3, dtype=torch.float64))(mine[1])
    with pytest.raises(RuntimeError, match="dtype"):
        optimizer.step()
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin)


def test_capturable_needs_an_accelerator() -> None:
    params = parameters(["vector"])
    set_gradients(0, params)
    for make in (torch.optim.Adam, oc.Adam):
        with pytest.raises(AssertionError, match="capturable=True"):
            make(params, capturable=True).step()


@every_engine
@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_capturable_switched_on_later(name: str, engine: dict[str, bool]) -> None:
    """And off again: nothing has been stepped, and the run goes on."""
    params = parameters(["vector"])
    optimizer = ours(name)(params, **engine)
    for _ in range(3):
        set_gradients(0, params)
        optimizer.step()
    before = params[0].detach().clone()
    optimizer.param_groups[0]["capturable"] = True
    with pytest.raises(AssertionError, match="capturable=True needs parameters on an accelerator"):
        optimizer.step()
    assert torch.equal(params[0], before)
    optimizer.param_groups[0]["capturable"] = False
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 4
