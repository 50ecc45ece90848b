"""Storage options beside rules of whole tensors: in one optimizer, its checkpoints, and the backward pass."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchopt_course import SGD, AdamW, Mixed, TensorOptimizer, release_gradients


class RowMomentum(TensorOptimizer):
    """Momentum, and a state of another shape and dtype than the parameter's."""

    states = ("buffer", "rows")

    def __init__(self, params: Any, lr: float = 0.05, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    def initial_state(self, name: str, param: Tensor, group: Any) -> Tensor:
        shape = param.shape[:1] if name == "rows" else param.shape
        return torch.zeros(shape, dtype=torch.float64 if name == "rows" else torch.float32)

    @staticmethod
    def coefficients(lr: Any) -> dict[str, Any]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, buffer: Any, rows: Any, lr: Any) -> Any:
        buffer, rows = 0.9 * buffer + g, rows + g.double().flatten(1).sum(1)
        return p - lr * buffer, buffer, rows


def model_of(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).to(dtype)


def mixed(model: nn.Module, **options: Any) -> Mixed:
    routes = [(lambda name, p: p.ndim == 2, RowMomentum), (None, AdamW, {"lr": 1e-2, **options})]
    return Mixed(model.named_parameters(), routes)


def train(model: nn.Module, optimizer: Any, inputs: Iterator[Tensor]) -> None:
    for x in inputs:
        model(x.to(next(model.parameters()).dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def inputs(count: int, seed: int = 1) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(4, 5, generator=generator) for _ in range(count))


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for mine, other in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(mine, other)


STORAGE = [
    (torch.float32, {"state_dtype": torch.bfloat16}),
    (torch.bfloat16, {"rounding": "kahan"}),
    (torch.bfloat16, {"rounding": "stochastic", "state_dtype": {"exp_avg_sq": torch.float32}}),
]


@pytest.mark.parametrize(("dtype", "options"), STORAGE)
def test_a_checkpoint_of_several_rules_keeps_the_dtypes_of_all(dtype: torch.dtype, options: Any) -> None:
    model, again = model_of(dtype), model_of(dtype)
    optimizer = mixed(model, **options)
    train(model, optimizer, inputs(2))
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, state_dict = torch.load(file)
    again.load_state_dict(weights)
    resumed = mixed(again)  # asks for nothing: the checkpoint decides
    resumed.load_state_dict(state_dict)
    loaded = resumed.state_dict()["state"]
    for key, states in optimizer.state_dict()["state"].items():
        assert {name: state.dtype for name, state in states.items()} == {
            name: state.dtype for name, state in loaded[key].items()
        }
    train(model, optimizer, inputs(3, seed=2))
    train(again, resumed, inputs(3, seed=2))
    assert_same(model, again)


@pytest.mark.parametrize("make", [mixed, lambda model: mixed(model, state_dtype=torch.bfloat16)])
def test_released_gradients_take_the_steps_of_several_rules(make: Any) -> None:
    model, released = model_of(torch.float32), model_of(torch.float32)
    train(model, make(model), inputs(4))
    optimizer = make(released)
    handle = release_gradients(released, optimizer)
    train(released, optimizer, inputs(3))
    handle.remove()
    *_, last = inputs(4)
    train(released, optimizer, iter([last]))
    assert_same(model, released)


def test_one_route_takes_the_steps_of_its_class() -> None:
    model, alone = model_of(torch.float32), model_of(torch.float32)
    groups = [{"params": [param]} for param in model.parameters()]
    train(model, Mixed(groups, [(None, AdamW, {"lr": 1e-2})]), inputs(5))
    train(alone, AdamW(alone.parameters(), lr=1e-2), inputs(5))
    assert_same(model, alone)


@pytest.mark.parametrize("options", [{"state_dtype": torch.bfloat16}, {"rounding": "kahan"}])
def test_rules_of_whole_tensors_refuse_storage_options(options: Any) -> None:
    with pytest.raises(RuntimeError, match=f"RowMomentum has no {next(iter(options))}: .* initial_state"):
        RowMomentum([nn.Parameter(torch.ones(2, 3))], **options)


def test_lost_digits_are_forgotten_with_their_rounding_without_other_states() -> None:
    param = nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    optimizer = SGD([param], lr=1e-3, rounding="kahan")
    param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.state[param]["compensation"].count_nonzero() == 5
    optimizer.param_groups[0]["rounding"] = "nearest"
    optimizer.step()
    assert "compensation" not in optimizer.state[param]
