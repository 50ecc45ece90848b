"""Between two steps anything may change. A plan that did not notice would write to the wrong memory.

Each test changes one thing in mid-run, in parameters, states, groups or options, and goes on next to torch,
which keeps no plan.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import torchopt_course as oc

from ..helpers import engines_used, parameters, set_gradients
from .pairs import KINDS, both, pair, run


def test_data_is_replaced() -> None:
    def change(param: nn.Parameter, _: torch.optim.Optimizer) -> None:
        param.data = param.detach() + 1

    both(change)


def test_data_is_replaced_in_another_memory_layout() -> None:
    """Same shape, same numbers: only the strides are new, those of the states are not."""

    def change(param: nn.Parameter, _: torch.optim.Optimizer) -> None:
        param.data = param.detach().t().contiguous().t()

    both(change)


def test_data_becomes_a_transposed_view_of_itself() -> None:
    """Same address, same shape, other strides."""
    mine, reference = ([nn.Parameter(torch.arange(16.0).reshape(4, 4))] for _ in range(2))
    optimizers = oc.Adam(mine, lr=0.01, fused=True), torch.optim.Adam(reference, lr=0.01)
    run(mine, reference, optimizers, range(3))
    for params in (mine, reference):
        params[0].data = params[0].data.t()
    run(mine, reference, optimizers, range(3, 6))


def test_state_tensor_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["exp_avg"] = optimizer.state[param]["exp_avg"] * 2

    both(change)


def test_step_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["step"] = torch.tensor(100.0)

    both(change)


def test_step_is_changed_in_place() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param]["step"].fill_(50)

    both(change)


def test_whole_state_of_a_parameter_is_replaced() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.state[param] = {name: value.clone() + 1 for name, value in optimizer.state[param].items()}

    both(change)


def test_state_of_a_parameter_is_deleted() -> None:
    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        del optimizer.state[param]

    both(change)


def test_memory_of_a_state_is_replaced() -> None:
    """As code that moves states out of the way and back does."""

    def change(param: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        state = optimizer.state[param]["exp_avg_sq"]
        state.data = state.detach().clone() * 3

    both(change)


def test_load_state_dict() -> None:
    mine, reference, optimizers = pair()
    early = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    run(mine, reference, optimizers, range(3, 6))
    for optimizer, state in zip(optimizers, early, strict=True):
        optimizer.load_state_dict(state)
    run(mine, reference, optimizers, range(6, 9))


def test_add_param_group() -> None:
    mine, reference, optimizers = pair()
    extra = parameters(["large"]), parameters(["large"])
    for optimizer, params in zip(optimizers, extra, strict=True):
        optimizer.add_param_group({"params": params, "lr": 0.5})
    run(mine + extra[0], reference + extra[1], optimizers, range(3, 6))


def test_a_step_that_is_no_number_is_taken_as_it_is() -> None:
    """As torch does: the update is NaN, not left out."""
    mine, reference, optimizers = pair()
    set_gradients(3, mine, reference)
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        for i, value in enumerate([float("nan"), float("inf"), 3.0, 2.0]):
            optimizer.state[params[i]]["step"].fill_(value)
        optimizer.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, equal_nan=True)


def test_nothing_of_torchs_is_called_that_warns() -> None:
    """An empty group, as a frozen backbone leaves it; under `-W error` a deprecated call would be an end."""
    weights = nn.Parameter(torch.ones(2))
    optimizer = oc.Adam([{"params": [weights]}, {"params": []}])
    weights.grad = torch.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_parameter_is_appended_to_a_group() -> None:
    mine, reference, optimizers = pair()
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        params += parameters(["large"])
        optimizer.param_groups[0]["params"].append(params[-1])
    run(mine, reference, optimizers, range(3, 6))


def test_module_changes_dtype() -> None:
    """``module.to`` keeps the parameter objects and replaces what is in them."""
    mine, reference = (nn.Linear(3, 2), nn.Linear(3, 2))
    reference.load_state_dict(mine.state_dict())
    optimizers = oc.SGD(mine.parameters(), lr=0.1), torch.optim.SGD(reference.parameters(), lr=0.1)
    for step, dtype in enumerate([torch.float32, torch.float64, torch.bfloat16, torch.float32]):
        for module in (mine, reference):
            module.to(dtype)
        for module, optimizer in zip((mine, reference), optimizers, strict=True):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            module(torch.randn(4, 3, generator=generator).to(dtype)).sum().backward()
            optimizer.step()
        used = engines_used(optimizers[0])
        assert used["cpu"] == 2
        for param, twin in zip(mine.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-2, atol=2e-3)  # bfloat16 has 3 digits


def test_parameter_of_a_group_is_exchanged() -> None:
    mine, reference, optimizers = pair()
    new = torch.randn(5, 3)
    for params, optimizer in zip((mine, reference), optimizers, strict=True):
        params[1] = nn.Parameter(new.clone())
        optimizer.param_groups[0]["params"][1] = params[1]
    run(mine, reference, optimizers, range(3, 6))


def test_parameter_leaves_a_group() -> None:
    mine, reference, optimizers = pair()
    for optimizer in optimizers:
        optimizer.param_groups[0]["params"].pop()
    run(mine, reference, optimizers, range(3, 6))


def test_option_that_needs_another_state_is_switched_on() -> None:
    """torch raises a KeyError here; we start the missing state at zero."""
    params = parameters(KINDS)
    optimizer = oc.Adam(params, fused=True)
    for amsgrad in (False, True, False):
        optimizer.param_groups[0]["amsgrad"] = amsgrad
        set_gradients(0, params)
        optimizer.step()
    assert "max_exp_avg_sq" in optimizer.state[params[0]]


def test_option_changes_the_formula() -> None:
    mine, reference, optimizers = pair()
    for step, options in enumerate([{"weight_decay": 0.1}, {"maximize": True}, {"betas": (0.5, 0.9)}]):
        for optimizer in optimizers:
            optimizer.param_groups[0].update(options)
        run(mine, reference, optimizers, range(3 + step, 4 + step))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_go_on_by_themselves(duplicate: Callable[[object], object]) -> None:
    mine, reference, optimizers = pair()
    (copied, optimizer), (twin, other) = (
        duplicate((mine, optimizers[0])),
        duplicate((reference, optimizers[1])),
    )  # type: ignore[misc]
    before = [param.detach().clone() for param in mine]
    run(copied, twin, (optimizer, other), range(3, 6))
    assert all(torch.equal(param, old) for param, old in zip(mine, before, strict=True))
    run(mine, reference, optimizers, range(3, 6))
