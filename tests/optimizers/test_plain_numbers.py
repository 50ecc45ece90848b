"""Every number that an optimizer keeps or writes is Python's own, whatever the user gave."""

from __future__ import annotations

import copy
import io
from collections import UserDict, UserList
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torchopt_course as oc
from torchopt_course.validation import plain

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs
from .test_write_your_own import Lion

# What other libraries call a number: all of these are 0.25.
NUMBERS: dict[str, Callable[[], Any]] = {
    "float64": lambda: np.float64(0.25),
    "float32": lambda: np.float32(0.25),
    "longdouble": lambda: np.longdouble(0.25),
    "0-d array": lambda: np.array(0.25),
    "array of one": lambda: np.array([0.25]),
    "fraction": lambda: Fraction(1, 4),
    "decimal": lambda: Decimal("0.25"),
    "subclass": lambda: type("Float", (float,), {})(0.25),
}
numbers = pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)


class ListConfig(UserList[float]):
    """What OmegaConf makes of a list: a sequence that is neither list nor tuple."""


PAIRS: dict[str, Callable[[float, float], Any]] = {
    "list": lambda a, b: [a, b],
    "ListConfig": lambda a, b: ListConfig([a, b]),
    "array": lambda a, b: np.array([a, b]),
    "float32s": lambda a, b: np.array([a, b], dtype=np.float32),
    "scalars": lambda a, b: (np.float64(a), np.array(b)),
    "tensors": lambda a, b: [torch.tensor(a), torch.tensor([b])],
    "a tensor": lambda a, b: torch.tensor([a, b]),
}


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def assert_plain(optimizer: Any) -> None:
    """Nothing but what ``weights_only`` loads, and it comes back as it was."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    allowed = {float, int, bool, type(None), str, torch.Tensor, torch.nn.Parameter}
    for kept in (optimizer.defaults, optimizer.param_groups, loaded["param_groups"]):
        assert set(map(type, leaves(kept))) <= allowed
    optimizer.load_state_dict(loaded)


def options_of(name: str) -> list[str]:
    """The options that are numbers, none of which is out of range at 0.25."""
    defaults = ours(name)(parameters(["vector"])).defaults
    return [key for key, value in defaults.items() if type(value) in (float, int)]


@numbers
@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_others(name: str, number: Callable[[], Any]) -> None:
    """In the constructor, in a group, written into a group later, in a checkpoint."""
    plainly = dict.fromkeys(options_of(name), 0.25)
    given = {key: number() for key in plainly}
    mine, reference = parameters(["vector", "matrix"]), parameters(["vector", "matrix"])
    optimizer = ours(name)([{"params": mine[:1]}, {"params": mine[1:], **given}], **given)
    other = theirs(name)([{"params": reference[:1]}, {"params": reference[1:]}], **plainly)
    assert_plain(optimizer)
    for step in range(4):
        if step == 1:
            optimizer.param_groups[0]["lr"] = number()
        if step == 2:
            saved = copy.deepcopy(optimizer.state_dict())
            saved["param_groups"][0]["lr"] = number()
            optimizer.load_state_dict(saved)
            assert type(optimizer.param_groups[0]["lr"]) is float
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        assert_plain(optimizer)
    assert_same(mine, reference, optimizer, other)


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_any_pair_of_betas_becomes_a_tuple(name: str, make: Callable[[float, float], Any]) -> None:
    """In the constructor as torch's; in a group a list stays a list, as in torch."""
    mine, reference = parameters(["vector"], torch.float64), parameters(["vector"], torch.float64)
    optimizer, other = ours(name)(mine, betas=make(0.5, 0.75)), theirs(name)(reference, betas=(0.5, 0.75))
    betas = optimizer.param_groups[0]["betas"]
    assert type(betas) is tuple
    assert all(beta.dim() == 0 if isinstance(beta, torch.Tensor) else type(beta) is float for beta in betas)
    assert_plain(optimizer)
    for step in range(4):
        if step == 2:
            optimizer.param_groups[0]["betas"] = make(0.25, 0.5)
            other.param_groups[0]["betas"] = (0.25, 0.5)
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_plain(optimizer)
    # Tensors of float32 are computed with as such, by torch too.
    assert_same(mine, reference, optimizer, other, 1e-6 if isinstance(betas[0], torch.Tensor) else None)
    added = ours(name)([{"params": mine, "betas": make(0.5, 0.75)}]).param_groups[0]["betas"]
    assert isinstance(added, tuple | list | torch.Tensor)


@pytest.mark.parametrize(
    "betas", [0.9, None, "ab", (0.9,), (0.9, 0.99, 0.5), {0.9, 0.99}, {}, torch.tensor(0.9)], ids=str
)
def test_what_is_no_pair(betas: Any) -> None:
    params = parameters(["vector"])
    for use in (lambda: oc.Adam(params, betas=betas), lambda: oc.Adam([{"params": params, "betas": betas}])):
        with pytest.raises((TypeError, ValueError), match=r"betas"):
            use()


def test_own_optimizers_too() -> None:
    params = parameters(["vector"])
    optimizer = Lion(params, lr=np.float64(0.1), betas=ListConfig([0.9, 0.99]))
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    set_gradients(0, params)
    optimizer.step()
    assert_plain(optimizer)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.sampled_from(
            [*(make() for make in NUMBERS.values()), None, True, 3, "text", np.bool_(True), np.int8(3)]
        ),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            | st.dictionaries(st.text(max_size=2), inner, max_size=3).map(UserDict)
        ),
        max_leaves=6,
    )
)
def test_plain_keeps_the_value_and_no_foreign_type(value: Any) -> None:
    """And what is plain already stays the very same object: who keeps a list can change it."""
    result = plain(value)
    assert set(map(type, leaves(result))) <= {float, int, bool, type(None), str}
    assert plain(result) is result
    if not isinstance(value, UserDict | np.ndarray | Decimal):
        assert result == value


def test_what_is_no_number_stays() -> None:
    for value in (torch.ones(2), object(), print, "0.1", b"0.1", np.array(["a", "b"]).tolist()):
        assert plain(value) is value
    assert plain(np.arange(3)) == (0, 1, 2)
    assert type(plain(np.bool_(True))) is bool
