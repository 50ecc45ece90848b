"""Learning rates, betas and decays that are tensors: changed in place, scheduled, learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

import torchopt_course as oc

from ..helpers import ENGINES, assert_same, ours, parameters, set_gradients, theirs
from ..twins import KINDS, Optimizer, every_variant, every_variant_and_engine, side_by_side

# -- tensor options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
@every_variant_and_engine
def test_tensor_lr_changed_in_place(
    name: str, options: dict[str, Any], shape: tuple[int, ...], engine: dict[str, bool]
) -> None:
    """The next step has the new rate, and the tensor is still the user's. Truth: torch with a plain number.

    (torch's own for-loop divides a state by a tensor of shape (1, 1) only if the parameter has that many
    dimensions.)
    """
    lr = torch.full(shape, 0.01, dtype=torch.float64)
    mine, reference, optimizer, other = side_by_side(name, lr=lr, **options, **engine)
    for group in other.param_groups:
        group["lr"] = 0.01
    for step in range(6):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        lr.mul_(0.5)
        other.param_groups[0]["lr"] *= 0.5
        if step == 3:
            lr.fill_(0.1)
            other.param_groups[0]["lr"] = 0.1
    assert_same(mine, reference, optimizer, other)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.shape == shape


@every_variant_and_engine
def test_tensor_lr_under_a_scheduler(name: str, options: dict[str, Any], engine: dict[str, bool]) -> None:
    """torch's schedulers fill the tensor in place; torch's optimizer with the same tensor is the truth."""
    lrs = [torch.tensor(0.04, dtype=torch.float64) for _ in range(2)]
    mine, reference = parameters(KINDS, torch.float64), parameters(KINDS, torch.float64)
    optimizer = ours(name)(mine, lr=lrs[0], **options, **engine)
    other = theirs(name)(reference, lr=lrs[1], **options, foreach=False)
    schedulers = [StepLR(each, step_size=2, gamma=0.5) for each in (optimizer, other)]
    for step in range(6):
        set_gradients(step, mine, reference)
        for each, scheduler in zip((optimizer, other), schedulers, strict=True):
            each.step()
            scheduler.step()
    assert lrs[0] == lrs[1] == 0.005
    assert_same(mine, reference, optimizer, other)


@pytest.mark.parametrize("engine", [ENGINES["cpu"], ENGINES["eager"]], ids=["cpu", "eager"])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_tensor_betas_changed_in_place(
    name: str, shape: tuple[int, ...], amsgrad: bool, engine: dict[str, bool]
) -> None:
    betas = [torch.full(shape, 0.9, dtype=torch.float64), torch.full(shape, 0.99, dtype=torch.float64)]
    mine, reference, optimizer, other = side_by_side(
        name, lr=0.01, betas=tuple(betas), amsgrad=amsgrad, **engine
    )
    other.param_groups[0]["betas"] = (0.9, 0.99)
    for step in range(6):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        if step == 2:
            betas[0].fill_(0.5)
            betas[1].sub_(0.09)
            other.param_groups[0]["betas"] = (0.5, 0.9)
    assert_same(mine, reference, optimizer, other)
    assert optimizer.param_groups[0]["betas"] == tuple(betas)
    assert all(beta.shape == shape for beta in betas)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_tensor_betas_equal_torchs(name: str) -> None:
    """torch with the same tensors, 0-d and changed in place."""
    pair = []
    for make in (ours(name), theirs(name)):
        params = parameters(KINDS, torch.float64)
        betas = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.99, dtype=torch.float64)
        extra = {} if make is ours(name) else {"foreach": False}
        optimizer = make(params, lr=torch.tensor(0.01, dtype=torch.float64), betas=betas, **extra)
        for step in range(6):
            set_gradients(step, params)
            optimizer.step()
            betas[0].mul_(0.9)
        pair.append((params, optimizer))
    assert_same(pair[0][0], pair[1][0], pair[0][1], pair[1][1])


def test_tensor_weight_decay_of_sgd() -> None:
    """torch's signature of SGD allows it."""
    mine, reference, optimizer, other = side_by_side("SGD", weight_decay=0.1)
    optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.1, dtype=torch.float64)
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
        optimizer.param_groups[0]["weight_decay"].mul_(2)
        other.param_groups[0]["weight_decay"] *= 2
    assert_same(mine, reference, optimizer, other)


# -- meta-learning -------------------------------------------------------------------------------------


def slope(weights: Tensor) -> Tensor:
    """The gradient of Σ (w - 1)⁴ / 4 + w² / 2, still connected to the weights."""
    copy = weights.clone()  # step() changes the weights in place, autograd needs the old ones
    return torch.autograd.grad(((copy - 1) ** 4 / 4 + copy**2 / 2).sum(), copy, create_graph=True)[0]


def final_loss(make: Callable[..., Optimizer], **options: Any) -> Tensor:
    """The loss after ten differentiable steps of a vector and a single number."""
    starts = torch.tensor([0.3, -0.7, 2.0], dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)
    weights = [start.requires_grad_().clone() for start in starts]  # no leaves: they have a history
    optimizer = make(weights, differentiable=True, **options)
    for _ in range(10):
        for weight in weights:
            weight.grad = slope(weight)
        optimizer.step()
    return torch.stack([weight.square().sum() for weight in weights]).sum()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
@every_variant
def test_learning_rate_is_learned_through_ten_steps(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """d(loss after ten steps)/d(learning rate), by autograd through all steps and by finite differences."""
    lr = torch.full(shape, 0.02, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(final_loss(ours(name), lr=lr, **options), lr)
    assert gradient.shape == shape
    eps = 1e-6
    above, below = (final_loss(ours(name), lr=lr.item() + shift, **options).item() for shift in (eps, -eps))
    assert gradient.item() == pytest.approx((above - below) / (2 * eps), rel=1e-6)
    assert abs(gradient.item()) > 0.1


@pytest.mark.parametrize("shape", [(), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_are_learned_through_ten_steps(name: str, shape: tuple[int, ...]) -> None:
    """Both decay rates at once."""
    values = [0.9, 0.95]
    betas = [torch.full(shape, value, dtype=torch.float64, requires_grad=True) for value in values]
    loss = final_loss(ours(name), lr=0.05, betas=tuple(betas))
    for i, gradient in enumerate(torch.autograd.grad(loss, betas)):
        above, below = (
            final_loss(
                ours(name), lr=0.05, betas=tuple(v + shift * (i == j) for j, v in enumerate(values))
            ).item()
            for shift in (1e-6, -1e-6)
        )
        assert gradient.item() == pytest.approx((above - below) / 2e-6, rel=1e-5)
        assert gradient.item() != 0


def test_learning_rate_improves() -> None:
    """The purpose of it: Adam learns the learning rate of momentum, and training becomes better."""
    lr = torch.tensor(0.001, dtype=torch.float64, requires_grad=True)
    meta = oc.Adam([lr], lr=0.002)
    losses = []
    for _ in range(20):
        weights = torch.tensor([0.3, -0.7, 2.0], dtype=torch.float64, requires_grad=True).clone()
        optimizer = oc.Momentum([weights], lr=lr, differentiable=True)
        for _ in range(10):
            weights.grad = slope(weights)
            optimizer.step()
        loss = slope(weights).square().sum()
        meta.zero_grad()
        loss.backward()
        meta.step()
        losses.append(loss.item())
    assert lr > 0.01
    assert losses[-1] < 0.5 * losses[0]
