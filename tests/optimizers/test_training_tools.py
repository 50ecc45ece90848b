"""What users do around a step: clipping, accumulation, steps in the backward pass, averages of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import torchopt_course as oc

from ..helpers import assert_same, ours, theirs
from ..twins import Optimizer, every_name

# -- around the gradient -------------------------------------------------------------------------------


def two_models(name: str, **options: Any) -> list[tuple[nn.Module, Optimizer]]:
    """A small network twice; the first trained by ours, the second by torch's."""
    models = []
    for make in (ours(name), theirs(name)):
        torch.manual_seed(1)
        # No bias before the batch norm: its gradient would be the noise of rounding.
        layers = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)
        model = nn.Sequential(*layers).double()
        models.append((model, make(model.parameters(), **options)))
    return models


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(16, 6, generator=generator, dtype=torch.float64) for _ in range(count)]


def assert_equal_models(models: list[tuple[nn.Module, Optimizer]]) -> None:
    (mine, optimizer), (reference, other) = models
    assert_same(list(mine.parameters()), list(reference.parameters()), optimizer, other, 1e-9)


@pytest.mark.parametrize(
    "clip",
    [
        lambda params: nn.utils.clip_grad_norm_(params, 0.05),
        lambda params: nn.utils.clip_grad_norm_(params, 0.05, foreach=True),
        lambda params: nn.utils.clip_grad_value_(params, 0.01),
    ],
    ids=["norm", "norm foreach", "value"],
)
@every_name
def test_clipped_gradients(name: str, clip: Callable[[Any], Any]) -> None:
    models = two_models(name, lr=0.05)
    for batch in batches(10):
        for model, optimizer in models:
            optimizer.zero_grad()
            model(batch).square().sum().backward()
            clip(model.parameters())
            optimizer.step()
    assert_equal_models(models)


@pytest.mark.parametrize("set_to_none", [True, False])
@every_name
def test_accumulated_gradients(name: str, set_to_none: bool) -> None:
    """Four small batches, then a step; with ``set_to_none=False`` the memory of the gradients stays."""
    models = two_models(name, lr=0.05)
    for i, batch in enumerate(batches(20)):
        for model, optimizer in models:
            (model(batch).square().mean() / 4).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)
    assert_equal_models(models)
    (mine, _), _ = models
    assert all((param.grad is None) == set_to_none for param in mine.parameters())


def test_step_in_backward() -> None:
    """A step as soon as a gradient is there: one optimizer for each parameter, in a hook of autograd."""
    models = two_models("Adam", lr=0.05)
    for make, (model, _) in zip((oc.Adam, torch.optim.Adam), models, strict=True):
        optimizers = {param: make([param], lr=0.05) for param in model.parameters()}

        def step(param: Tensor, optimizers: dict[Tensor, Optimizer] = optimizers) -> None:
            optimizers[param].step()
            optimizers[param].zero_grad()

        for param in model.parameters():
            param.register_post_accumulate_grad_hook(step)
        for batch in batches(5):
            model(batch).square().mean().backward()
    for param, twin in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-10, atol=1e-10)


# -- averaging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["SWA", "EMA"])
@every_name
def test_averaged_models(name: str, average: Any) -> None:
    """Stochastic weight averaging as in torch's tutorial: a schedule, then SWALR, means, batch norm anew."""
    models, averages, rates = two_models(name, lr=0.05), [], []
    for model, optimizer in models:
        averaged = AveragedModel(model, multi_avg_fn=average)
        scheduler, last = StepLR(optimizer, step_size=2, gamma=0.5), SWALR(optimizer, 0.02, anneal_epochs=3)
        rates.append([])
        for epoch, batch in enumerate(batches(12)):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            if epoch >= 5:
                averaged.update_parameters(model)
                last.step()
            else:
                scheduler.step()
            rates[-1].append(optimizer.param_groups[0]["lr"])
        update_bn(batches(3), averaged)
        averages.append(averaged)
    assert rates[0] == rates[1]
    assert rates[0][-1] == pytest.approx(0.02)
    assert_equal_models(models)
    for value, truth in zip(
        averages[0].state_dict().values(), averages[1].state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-9)
    assert not torch.equal(next(averages[0].parameters()), next(models[0][0].parameters()))
