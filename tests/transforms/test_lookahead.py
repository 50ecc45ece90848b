"""Lookahead: Algorithm 1 of the paper, around optimizers of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.transforms import lookahead

from ..helpers import NAMES, every_engine, ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix", "scalar", "empty", "large"]


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_papers(name: str, engine: dict[str, Any]) -> None:
    mine, fast = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    slow = [param.detach().clone() for param in fast]
    optimizer = ours(name)(mine, lr=0.05, transforms=[lookahead(3, 0.4)], **engine)
    inner = theirs(name)(fast, lr=0.05)
    for step in range(1, 8):
        set_gradients(step, mine, fast)
        optimizer.step()
        inner.step()
        if step % 3 == 0:
            with torch.no_grad():
                for phi, theta in zip(slow, fast, strict=True):
                    phi += 0.4 * (theta - phi)
                    theta.copy_(phi)
        for param, twin, phi in zip(mine, fast, slow, strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(optimizer.state[param]["slow"], phi, rtol=1e-11, atol=1e-11)


@every_engine
def test_each_parameter_counts_its_own_steps(engine: dict[str, Any]) -> None:
    params = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))]
    optimizer = oc.SGD(params, lr=1.0, transforms=[lookahead(2, 0.5)], **engine)
    for step in range(3):
        params[0].grad = torch.ones(2)
        params[1].grad = torch.ones(2) if step else None
        optimizer.step()
    # -1, -2 -> -1, -2 and (-1, -2 -> -1).
    assert params[0].tolist() == [-2.0, -2.0]
    assert params[1].tolist() == [-1.0, -1.0]


def test_a_group_may_go_without_and_begin_late() -> None:
    params = parameters(["vector", "matrix"])
    optimizer = oc.SGD(
        [{"params": params[:1], "lookahead_steps": 0}, {"params": params[1:]}], transforms=[lookahead(2)]
    )
    set_gradients(0, params)
    optimizer.step()
    assert "slow" not in optimizer.state[params[0]]
    optimizer.param_groups[0]["lookahead_steps"] = 3
    before = params[0].detach().clone()
    optimizer.step()
    assert torch.equal(optimizer.state[params[0]]["slow"], before)


@every_engine
@pytest.mark.parametrize("storage", [{}, {"state_dtype": "8bit"}], ids=str)
def test_switched_off_and_on_again_it_begins_with_the_weights(
    engine: dict[str, Any], storage: dict[str, Any]
) -> None:
    """Not with slow weights of long ago, to which they would go back."""
    param = Parameter(torch.zeros(5000))
    optimizer = oc.SGD([param], lr=1.0, transforms=[lookahead(2, 0.5)], **engine, **storage)

    def steps(count: int) -> float:
        for _ in range(count):
            param.grad = -torch.ones_like(param)
            optimizer.step()
        return param[0].item()

    assert steps(2) == 1.0
    optimizer.param_groups[0]["lookahead_steps"] = 0
    assert steps(10) == 11.0
    assert not [name for name in optimizer.state[param] if name.startswith("slow")]
    optimizer.param_groups[0]["lookahead_steps"] = 2
    assert steps(2) == pytest.approx(12.0, abs=0.2 if storage else 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [((-1,), ValueError), ((2.5,), ValueError), ((2, 1.5), ValueError), ((2, -0.1), ValueError)],
)
def test_odd_options_are_refused(options: Any, error: Any) -> None:
    with pytest.raises(error, match="Invalid lookahead"):
        oc.SGD(parameters(["vector"]), transforms=[lookahead(*options)])


def test_what_is_captured_cannot_decide() -> None:
    with pytest.raises(RuntimeError, match="capturable"):
        oc.Adam(parameters(["vector"]), capturable=True, transforms=[lookahead()])
