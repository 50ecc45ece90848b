"""Checkpoints of optimizers that have taken some steps, and what is to come of a wrong one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from ..helpers import assert_same, ours, parameters, set_gradients, theirs
from .test_write_your_own import Lion

KINDS = ["vector", "matrix", "scalar"]
StateDict = dict[str, Any]


def stepped(make: Callable[..., torch.optim.Optimizer], *groups: list[str], **options: Any) -> Any:
    """An optimizer after two steps, its parameters named after their kind."""
    sizes = groups or (KINDS,)
    params = [parameters(kinds) for kinds in sizes]
    named = [
        {"params": list(zip(kinds, group, strict=True))} for kinds, group in zip(sizes, params, strict=True)
    ]
    optimizer = make(named, **options)
    for step in range(2):
        for group in params:
            set_gradients(step, group)
        optimizer.step()
    return optimizer


def checkpoint(make: Callable[..., torch.optim.Optimizer], *groups: list[str], **options: Any) -> StateDict:
    return copy.deepcopy(stepped(make, *groups, **options).state_dict())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Everything in nested dictionaries and lists, one by one."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        if isinstance(item, Mapping | list):
            yield from leaves(item, (*path, key))
        else:
            yield (*path, key), item


def assert_unchanged(before: StateDict, after: StateDict) -> None:
    old, new = dict(leaves(before)), dict(leaves(after))
    assert list(old) == list(new)
    for path, value in old.items():
        same = torch.equal(value, new[path]) if isinstance(value, torch.Tensor) else value == new[path]
        assert same, path


def assert_refused(optimizer: Any, wrong: Any, error: type[Exception], *words: str) -> None:
    """The error's type and words are these, and neither the optimizer nor the checkpoint has changed."""
    before, state, groups = copy.deepcopy(optimizer.state_dict()), optimizer.state, optimizer.param_groups
    given = copy.deepcopy(wrong)
    with pytest.raises(error) as raised:
        optimizer.load_state_dict(wrong)
    assert type(raised.value) is error
    for word in words:
        assert word in str(raised.value), str(raised.value)
    assert optimizer.state is state
    assert optimizer.param_groups is groups
    assert_unchanged(before, optimizer.state_dict())
    if isinstance(wrong, Mapping):
        assert_unchanged(given, wrong)
    optimizer.step()  # and it goes on


LEFT_OUT = object()


def change(state_dict: StateDict, *path: Any, to: Any = LEFT_OUT) -> StateDict:
    """A copy of a checkpoint with one thing in it replaced, or left out."""
    changed = copy.deepcopy(state_dict)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    if to is LEFT_OUT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return changed


class LBFGS(torch.optim.LBFGS):
    """It wants a closure, and has a state unlike that of all others."""

    def step(self, closure: Any = None) -> Any:
        params = self.param_groups[0]["params"]
        return super().step(lambda: torch.stack([(param * param.grad).sum() for param in params]).sum())


def family(name: str) -> Callable[..., torch.optim.Optimizer]:
    own: dict[str, Callable[..., torch.optim.Optimizer]] = {"Lion": Lion, "LBFGS": LBFGS}
    return own.get(name) or theirs(name)


def goes_on(name: str, saved: StateDict, **options: Any) -> None:
    """Ours and torch's load the same checkpoint, under other options, and take the same steps."""
    mine, reference = parameters(KINDS), parameters(KINDS)
    optimizer, other = ours(name)(mine, lr=1.0, **options), theirs(name)(reference, lr=1.0, **options)
    other.load_state_dict(copy.deepcopy(saved))
    optimizer.load_state_dict(saved)
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)
