"""Classes made of ours as people make them of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ..helpers import assert_same, ours, parameters, set_gradients

KINDS = ["vector", "matrix"]
NAMES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]
every_name = pytest.mark.parametrize("name", NAMES)


def options_of(name: str) -> dict[str, Any]:
    return dict(getattr(torch.optim, name)([nn.Parameter(torch.ones(1))]).defaults)


# torch's AdamW stands on Adam, and its Adagrad makes its states in the constructor that is left out.
@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in ("SGD", "RMSprop", "Adam")
        for how in ("Optimizer.__init__", "super(base, self)")
    ]
    + [("AdamW", "Optimizer.__init__")],
)
def test_constructor_that_goes_past_the_bases(name: str, how: str) -> None:
    """Who copies the constructor of torch's Adam, and calls what that calls."""

    def make(base: Any) -> Any:
        class Mine(base):
            def __init__(self, params: Any) -> None:
                defaults = {**options_of(name), "lr": 0.05, "rho": 0.1}
                if how == "super(base, self)":
                    super(base, self).__init__(params, defaults)
                else:
                    torch.optim.Optimizer.__init__(self, params, defaults)

        return Mine

    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = make(ours(name))([{"params": mine[:1]}, {"params": mine[1:], "rho": 0.2}])
    other = make(getattr(torch.optim, name))(
        [{"params": reference[:1]}, {"params": reference[1:], "rho": 0.2}]
    )
    for step in range(4):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    assert_same(mine, reference, optimizer, other)
    assert [group["rho"] for group in optimizer.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        optimizer.add_param_group({"params": parameters(["scalar"]), "lr": -1.0})


@every_name
@pytest.mark.parametrize("extends", [False, True], ids=["as it is", "extended"])
def test_step_compiled_in_place_of_itself(name: str, extends: bool) -> None:
    """``optimizer.step = torch.compile(optimizer.step)``: each step is taken once."""
    count = []

    class Counting(ours(name)):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            count.append(1)
            return super().step(closure)

    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = (Counting if extends else ours(name))(mine, lr=0.05)
    other = getattr(torch.optim, name)(reference, lr=0.05)
    hooks: list[str] = []
    optimizer.register_step_post_hook(lambda *_: hooks.append("post"))
    torch._dynamo.reset()
    optimizer.step = torch.compile(optimizer.step, backend="eager")  # type: ignore[method-assign]
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    torch._dynamo.reset()
    assert_same(mine, reference, optimizer, other)
    assert len(count) == 3 * extends
    assert extends or hooks == ["post"] * 3
