"""Groups, options and states are dictionaries that users write into, between any two steps.

What torch can step afterwards we step alike. What it cannot is an error of torch's type, or a TypeError where
torch fails somewhere inside; it names the place, nothing has been stepped, and once it is mended we go on.
"""

from __future__ import annotations

import copy
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ..helpers import ENGINES, NAMES, assert_same, every_engine, set_gradients
from .edits import Edit, forget, new_parameter, params_of, stepped, write

# -- what is stepped as before -----------------------------------------------------------------------------

FINE: dict[str, Edit] = {
    "a parameter is taken out": lambda o: forget(o, 0),
    "a parameter is moved": lambda o: params_of(o).reverse(),
    "no parameters": lambda o: write(o, "params", []),
    "a tuple": lambda o: write(o, "params", tuple(params_of(o))),
    "values of a dictionary": lambda o: write(o, "params", dict(enumerate(params_of(o))).values()),
    "a raw group": lambda o: o.param_groups.append({**o.param_groups[0], "params": [new_parameter(o)]}),
    "a group of a subclass": lambda o: o.param_groups.append(
        defaultdict(int, {**o.param_groups[0], "params": [new_parameter(o)]})
    ),
    "groups taken out": lambda o: o.param_groups.clear(),
    "groups as a tuple": lambda o: setattr(o, "param_groups", tuple(o.param_groups)),
    "an entry of the user's": lambda o: o.state.update(epoch=3),
    "fewer names": lambda o: write(o, "param_names", ["a"]),
    "names are None": lambda o: write(o, "param_names", None),
    "names are a number": lambda o: write(o, "param_names", 3),
    "states are gone": lambda o: setattr(o, "state", defaultdict(dict)),
    "a state is empty": lambda o: o.state[params_of(o)[0]].clear(),
    "lr is an int": lambda o: write(o, "lr", 1),
    "lr is a tensor": lambda o: write(o, "lr", torch.tensor(0.5)),
    "maximize is a list": lambda o: write(o, "maximize", [1]),
}


@every_engine
@pytest.mark.parametrize("edit", FINE.values(), ids=FINE)
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_goes_on_as_torch(name: str, edit: Edit, engine: dict[str, bool]) -> None:
    mine, reference, optimizer, other = stepped(name, engine)
    for each in (optimizer, other):
        edit(each)
    assert isinstance(optimizer.engine_report(), str)
    for step in range(2):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)
    assert isinstance(optimizer.engine_report(), str)


# -- what is named -----------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Edit, type[Exception], str]] = {
    "None among the parameters": (
        lambda o: params_of(o).append(None),
        TypeError,
        "parameter 2 of group 0 must be a tensor, got NoneType",
    ),
    "text among the parameters": (
        lambda o: params_of(o).insert(0, "weight"),
        TypeError,
        "parameter 0 of group 0 must be a tensor, got",
    ),
    "a dictionary of parameters": (
        lambda o: write(o, "params", {"w": params_of(o)[0]}),
        TypeError,
        "parameter 0 of group 0 must be",
    ),
    "one parameter": (
        lambda o: write(o, "params", params_of(o)[0]),
        TypeError,
        "'params' of group 0 must be a list of",
    ),
    "None as parameters": (
        lambda o: write(o, "params", None),
        TypeError,
        "'params' of group 0 must be a list of tensors",
    ),
    "no parameters": (
        lambda o: o.param_groups[0].pop("params"),
        KeyError,
        "parameter group 0 has no 'params'",
    ),
    "an option is gone": (lambda o: o.param_groups[0].pop("lr"), KeyError, "parameter group 0 has no 'lr'"),
    "an engine option is gone": (
        lambda o: o.param_groups[0].pop("maximize"),
        KeyError,
        "parameter group 0 has no 'maximize'",
    ),
    "a bare group": (
        lambda o: o.param_groups.append({"params": [new_parameter(o)]}),
        KeyError,
        "parameter group 1 has no",
    ),
    "None for a group": (
        lambda o: o.param_groups.append(None),
        TypeError,
        "parameter group 1 must be a dictionary, got NoneType",
    ),
    "a list for a group": (
        lambda o: o.param_groups.append([new_parameter(o)]),
        TypeError,
        "parameter group 1 must be a dictionary",
    ),
    "lr is None": (lambda o: write(o, "lr", None), TypeError, "lr is None, expected a number"),
    "lr is text": (lambda o: write(o, "lr", "0.1"), TypeError, "lr is '0.1', expected a number"),
    "lr is complex": (lambda o: write(o, "lr", 1j), TypeError, "lr is 1j, expected a number"),
    "lr is a pair": (lambda o: write(o, "lr", (0.1, 0.2)), TypeError, "lr is (0.1, 0.2), expected a number"),
    "lr has two elements": (lambda o: write(o, "lr", torch.ones(2)), TypeError, "lr is tensor([1., 1.])"),
    "a state is a number": (
        lambda o: o.state[params_of(o)[0]].update(dict.fromkeys(STATES, 0)),
        TypeError,
        "of parameter 0 of",
    ),
    "a state is text": (
        lambda o: o.state[params_of(o)[0]].update(dict.fromkeys(STATES, "x")),
        TypeError,
        "of parameter 0 of",
    ),
    "states are a list": (
        lambda o: o.state.update({params_of(o)[0]: [1.0]}),
        TypeError,
        "state of parameter 0 of group 0 must be",
    ),
    "states are None": (
        lambda o: o.state.update({params_of(o)[0]: None}),
        TypeError,
        "state of parameter 0 of group 0 must be",
    ),
    "no state at all": (lambda o: setattr(o, "state", None), TypeError, "state must be a dictionary"),
}
STATES = ("momentum_buffer", "sum", "square_avg", "exp_avg")


@every_engine
@pytest.mark.parametrize(("edit", "kind", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_is_named_and_mended(
    name: str, edit: Edit, kind: type[Exception], words: str, engine: dict[str, bool]
) -> None:
    mine, reference, optimizer, other = stepped(name, engine)
    groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
    state = {param: copy.deepcopy(own) for param, own in optimizer.state.items()}
    before = [param.detach().clone() for param in mine]
    edit(optimizer)
    set_gradients(2, mine, reference)
    with pytest.raises(kind) as raised:
        optimizer.step()
    assert words in str(raised.value)
    assert isinstance(raised.value, TypeError | KeyError | RuntimeError)
    assert all(torch.equal(param, old) for param, old in zip(mine, before, strict=True))
    optimizer.param_groups, optimizer.state = groups, defaultdict(dict, state)
    optimizer.step()
    other.step()
    assert_same(mine, reference, optimizer, other)
    assert engine.get("fused") is not True or optimizer.engine_report().startswith("fused CPU engine: 2")


# -- any of them, in any order -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    engine=st.sampled_from(list(ENGINES.values())),
    edits=st.lists(st.sampled_from([*FINE, *WRONG]), min_size=1, max_size=4),
)
def test_in_any_order(name: str, engine: dict[str, bool], edits: list[str]) -> None:
    """Either both go on alike, or we say why not: never an error from somewhere inside."""
    mine, reference, optimizer, other = stepped(name, engine)
    for step, label in enumerate(edits):
        edit = FINE.get(label) or WRONG[label][0]
        try:
            edit(other)
        except (AttributeError, TypeError, IndexError, KeyError):
            return  # an earlier edit has taken away what this one would change
        edit(optimizer)
        set_gradients(step, mine, reference)
        failure = None
        try:
            optimizer.step()
        except (TypeError, KeyError, RuntimeError) as error:
            failure = str(error)
        if failure is not None:
            assert any(words in failure for words in ("group", "expected a number", "state must be a dict"))
            return
        other.step()
        assert_same(mine, reference, optimizer, other)
