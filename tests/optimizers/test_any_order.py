"""Whatever is done to an optimizer, in whatever order: it goes on as torch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ..helpers import assert_same, every_engine, ours, parameters, set_gradients, theirs
from ..twins import Optimizer, every_name

# -- anything in any order -----------------------------------------------------------------------------

OPERATIONS = st.one_of(
    st.tuples(st.just("steps"), st.integers(1, 3)),
    st.tuples(st.just("gradients"), st.lists(st.booleans(), min_size=6, max_size=6)),
    st.tuples(st.just("zero_grad"), st.booleans()),
    st.tuples(st.just("add_param_group"), st.sampled_from([0.001, 0.05])),
    st.tuples(st.just("lr"), st.sampled_from([0.0, 0.002, 0.1])),
    st.tuples(st.just("weight_decay"), st.sampled_from([0, 0.05])),
    st.tuples(st.just("load_state_dict"), st.sampled_from(["own", "of before", "into another"])),
    st.tuples(st.just("p.data"), st.sampled_from(["copy", "in place", "transposed"])),
    st.tuples(st.just("requires_grad"), st.booleans()),
)


class Machine:
    """An optimizer on which operations are carried out by name."""

    def __init__(self, make: Callable[..., Optimizer], options: dict[str, Any]) -> None:
        self.make, self.options = make, options
        self.params = parameters(["vector", "matrix", "channels_last"], torch.float64)
        self.optimizer = make(self.params, lr=0.01, **options)
        self.step, self.present = 0, [True] * 6
        self.before = copy.deepcopy(self.optimizer.state_dict())

    def do(self, operation: str, value: Any) -> None:
        if operation == "steps":
            for _ in range(value):
                set_gradients(self.step, self.params)
                for param, present in zip(self.params, self.present, strict=False):
                    if not present or not param.requires_grad:
                        param.grad = None
                self.optimizer.step()
                self.step += 1
        elif operation == "gradients":
            self.present = value
        elif operation == "zero_grad":
            self.optimizer.zero_grad(set_to_none=value)
            self.optimizer.step()  # zero is a gradient, none is not
        elif operation == "add_param_group" and len(self.params) < 6:
            self.params.append(nn.Parameter(torch.full((2, 2), 0.5, dtype=torch.float64)))
            self.optimizer.add_param_group({"params": self.params[-1:], "lr": value})
        elif operation in ("lr", "weight_decay"):
            self.optimizer.param_groups[-1][operation] = value
        elif operation == "load_state_dict":
            self.load(value)
        elif operation == "p.data":
            self.replace_data(value)
        elif operation == "requires_grad":
            self.params[1].requires_grad_(value)
            self.params[1].grad = None

    def load(self, which: str) -> None:
        saved = copy.deepcopy(self.optimizer.state_dict())
        if which == "of before" and len(self.before["param_groups"]) == len(self.optimizer.param_groups):
            saved, self.before = self.before, saved
        if which == "into another":
            groups = [{"params": group["params"]} for group in self.optimizer.param_groups]
            self.optimizer = self.make(groups, lr=1.0, **self.options)
        self.optimizer.load_state_dict(copy.deepcopy(saved))

    def replace_data(self, how: str) -> None:
        param = self.params[1]
        if how == "copy":
            param.data = param.detach().clone() * 1.01
        elif how == "in place":
            with torch.no_grad():
                param.mul_(0.99)
        else:
            param.data = param.detach().t().contiguous().t()


@every_engine
@every_name
@given(operations=st.lists(OPERATIONS, min_size=4, max_size=14))
@settings(max_examples=8)
def test_operations_in_any_order(name: str, engine: dict[str, bool], operations: list[Any]) -> None:
    options: dict[str, Any] = {"RMSprop": {"momentum": 0.5}, "Adam": {"amsgrad": True}}.get(name, {})

    def make(params: Any, **given: Any) -> Optimizer:
        optimizer = ours(name)(params, **given)
        optimizer.defaults |= engine
        for group in optimizer.param_groups:
            group.update(engine)
        return optimizer

    machines = [Machine(make, options), Machine(theirs(name), options)]
    for operation in [("steps", 1), *operations, ("steps", 2)]:
        for machine in machines:
            machine.do(*operation)
    mine, reference = machines
    assert_same(mine.params, reference.params, mine.optimizer, reference.optimizer)
