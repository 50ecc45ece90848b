"""States and checkpoints over all of torch's own table of optimizer inputs, as torch tests them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ..helpers import assert_same, ours, parameters, set_gradients
from .optim_table import KINDS, cases, every_implementation, every_name, reference_of, twins


@pytest.mark.parametrize("implementation", ["default", "for-loop", "foreach", "fused"])
@every_name
def test_state_that_is_there_before_the_first_step(name: str, implementation: str) -> None:
    """Set by hand, it counts as in torch; a user's own entry beside it disturbs nobody."""
    for options in cases(name, implementation):
        mine, reference = twins(["vector", "matrix"], torch.float64, "cpu", implementation)
        optimizer, other = ours(name)(mine, **copy.deepcopy(options)), reference_of(name, reference, options)
        donor = reference_of(name, twin := parameters(["vector", "matrix"], torch.float64), options)
        set_gradients(7, twin)
        donor.step()
        for params, receiver in ((mine, optimizer), (reference, other)):
            for param, given in zip(params, twin, strict=True):
                if donor.state.get(given):
                    receiver.state[param] = copy.deepcopy(donor.state[given])
        optimizer.state[mine[0]]["note"] = "mine"
        for step in range(3):
            set_gradients(step, mine, reference)
            optimizer.step()
            other.step()
        assert optimizer.state[mine[0]].pop("note") == "mine"
        assert_same(mine, reference, optimizer, other)


@every_name
def test_gradients_of_only_some_parameters(name: str) -> None:
    """A state that holds only an entry of the user's is no state yet: the rest is made, as in torch."""
    for options in cases(name, "default"):
        mine, reference = twins(["vector", "matrix"], torch.float64, "cpu", "default")
        optimizer, other = ours(name)(mine, **copy.deepcopy(options)), reference_of(name, reference, options)
        optimizer.state[mine[1]]["note"] = "mine"
        for step in range(4):
            set_gradients(step, mine, reference)
            for params in (mine, reference):
                params[step % 2].grad = None
            optimizer.step()
            other.step()
        del optimizer.state[mine[1]]["note"]
        assert_same(mine, reference, optimizer, other)


@every_implementation
@every_name
def test_state_dict_is_deterministic(name: str, implementation: str) -> None:
    """A copy of parameters and checkpoint goes on bit for bit, and leaves the checkpoint as it was."""
    for options in cases(name, implementation):
        mine, _ = twins(KINDS, torch.float32, "cpu", implementation)
        optimizer = ours(name)(mine, **copy.deepcopy(options))
        for step in range(3):
            set_gradients(step, mine)
            optimizer.step()
        copies = copy.deepcopy(mine)
        successor = ours(name)(copies, **copy.deepcopy(options))
        saved, given = (copy.deepcopy(optimizer.state_dict()) for _ in range(2))
        successor.load_state_dict(given)
        for step in range(3, 6):
            set_gradients(step, mine, copies)
            optimizer.step()
            successor.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, copies, strict=True))
        for i, state in saved["state"].items():
            assert list(state) == list(given["state"][i])
            now, then = optimizer.state_dict()["state"][i], successor.state_dict()["state"][i]
            assert all(torch.equal(now[key], then[key]) for key in state)
        assert optimizer.state_dict()["param_groups"] == successor.state_dict()["param_groups"]


@every_name
def test_named_and_unnamed_checkpoints_load_each_other(name: str) -> None:
    for options in cases(name, "default"):
        for named_before, named_after in ((True, False), (False, True)):
            mine, reference = twins(["vector", "matrix"], torch.float64, "cpu", "default")

            def make(
                make: Callable[..., torch.optim.Optimizer], params: list[nn.Parameter], named: bool
            ) -> torch.optim.Optimizer:
                given = list(zip("ab", params, strict=True)) if named else params
                return make(given, **copy.deepcopy(options))  # noqa: B023

            pair = []
            for maker, params in ((ours(name), mine), (getattr(torch.optim, name), reference)):
                first, second = make(maker, params, named_before), make(maker, params, named_after)
                set_gradients(0, params)
                first.step()
                second.load_state_dict(first.state_dict())
                pair.append(second)
            groups = [optimizer.param_groups[0] for optimizer in pair]
            assert groups[0].get("param_names") == groups[1].get("param_names") == ["a", "b"]
            set_gradients(1, mine, reference)
            for optimizer in pair:
                optimizer.step()
            assert_same(mine, reference, *pair)


@every_name
def test_deepcopy_has_all_public_attributes(name: str) -> None:
    for options in cases(name, "default"):
        optimizer = ours(name)(parameters(["vector"]), **options)
        public = {key for key in vars(optimizer) if not key.startswith("_")}
        assert public == {key for key in vars(copy.deepcopy(optimizer)) if not key.startswith("_")}
        reference = getattr(torch.optim, name)(parameters(["vector"]))
        assert public == {key for key in vars(reference) if not key.startswith("_")}
