"""States that users have edited: steps that are no number, memory that two share, states of nobody."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ..helpers import every_engine, ours, set_gradients
from .edits import params_of, stepped


@every_engine
@pytest.mark.parametrize("step", [0, 3.0, "7", torch.ones(2), torch.tensor(True)], ids=str)
def test_step_that_is_no_singleton_tensor(step: Any, engine: dict[str, bool]) -> None:
    """torch: "`state_steps` argument must contain a list of singleton tensors"."""
    *_, optimizer, other = stepped("Adam", engine)
    if not isinstance(step, torch.Tensor):
        other.state[params_of(other)[0]]["step"] = step
        with pytest.raises(RuntimeError, match="singleton tensor"):
            other.step()
    optimizer.state[params_of(optimizer)[0]]["step"] = step
    with pytest.raises(RuntimeError, match="'step' of parameter 0 of group 0 must be a singleton tensor"):
        optimizer.step()


@every_engine
@pytest.mark.parametrize("key", ["exp_avg", "max_exp_avg_sq"])
@pytest.mark.parametrize("way", ["view", "part", "data"])
def test_states_of_two_parameters_in_one_memory(way: str, key: str, engine: dict[str, bool]) -> None:
    """Other tensors are refused. The same with other memory may go on: kernels do, as torch's loop does."""

    def stepped_twice(make: Any) -> tuple[Any, list[torch.nn.Parameter]]:
        params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
        optimizer = make(params, amsgrad=True)
        for _ in range(2):
            set_gradients(0, params)
            optimizer.step()
        return optimizer, params

    optimizer, params = stepped_twice(partial(ours("Adam"), **engine))
    first, second = (optimizer.state[param] for param in params)
    if way == "view":
        second[key] = first[key][:]
    elif way == "part":
        both = torch.zeros(5)
        first[key], second[key] = both[:3], both[2:]
    else:
        second[key].data = first["exp_avg_sq"].data
    if way == "data" and engine.get("fused"):
        theirs, expected = stepped_twice(partial(torch.optim.Adam, foreach=False))
        theirs.state[expected[1]][key].data = theirs.state[expected[0]]["exp_avg_sq"].data
        for each in optimizer, theirs:
            each.step()
        for param, other in zip(params, expected, strict=True):
            torch.testing.assert_close(param, other)
        return
    before = [param.detach().clone() for param in params]
    with pytest.raises(RuntimeError, match=f"state '{key}' of parameter 1 of group 0 shares memory with"):
        optimizer.step()
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))


@every_engine
@pytest.mark.parametrize(
    ("name", "key"),
    [("Momentum", "momentum_buffer"), ("Adagrad", "sum"), ("Adam", "exp_avg"), ("Adam", "step")],
)
def test_state_that_two_parameters_share(name: str, key: str, engine: dict[str, bool]) -> None:
    """torch's for-loop lets each see what the other has left of it, its foreach does not."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizer = ours(name)(params, **engine)
    set_gradients(0, params)
    optimizer.step()
    own = optimizer.state[params[1]][key]
    optimizer.state[params[1]][key] = optimizer.state[params[0]][key]
    before = [param.detach().clone() for param in params]
    words = f"state '{key}' of parameter 1 of group 0 is one and the same tensor as a state of parameter 0 of"
    with pytest.raises(RuntimeError, match=words):
        optimizer.step()
    assert all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    optimizer.state[params[1]][key] = own
    optimizer.step()
    assert not torch.equal(params[1], before[1])


def test_state_of_a_parameter_that_was_taken_out() -> None:
    """torch: KeyError: 140301867345632."""
    *_, optimizer, _ = stepped("Adam", {})
    removed = params_of(optimizer).pop()
    with pytest.raises(KeyError, match=r"shape \(5, 3\) that is in no group any more"):
        optimizer.state_dict()
    del optimizer.state[removed]
    assert list(optimizer.state_dict()["state"]) == [0]
