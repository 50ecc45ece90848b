"""Any optimizer of torch's goes on bit for bit in train.py, and what is measured is each weight's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

import torchopt_course as optim
from recipes.common.data import Data, load_data
from recipes.common.model import mlp
from recipes.trainer.checkpoint import serialised
from recipes.trainer.measure import effective_step_sizes
from recipes.trainer.training import Training
from recipes.zoo import SAM, SOAP, ScheduleFreeAdamW
from torchopt_course.lr_scheduler import as_lr

BATCH, STEPS, EPOCHS = 50, 3, 3


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", "validation").first(BATCH * STEPS)


class Words(nn.Module):
    """The pictures' shades as words, each with a row of weights whose gradient is sparse."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.rows = nn.EmbeddingBag(64, 10, mode="sum", sparse=sparse)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.rows((inputs.abs() * 16).long() % 64)  # type: ignore[no-any-return]


def network(sparse: bool) -> nn.Module:
    torch.manual_seed(0)
    return Words() if sparse else mlp(8, 10)


def in_two_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The last layer's weights first, with another rate."""
    hidden_weight, hidden_bias, *output = model.parameters()
    return [{"params": output, "lr": 0.1}, {"params": [hidden_weight, hidden_bias], "lr": 0.001}]


@pytest.mark.parametrize(
    ("optimizer_of", "scheduler_of"),
    [
        (
            lambda m: torch.optim.LBFGS(m.parameters(), max_iter=4, line_search_fn="strong_wolfe"),
            lambda o: lr_scheduler.StepLR(o, 1),
        ),
        (lambda m: torch.optim.ASGD(m.parameters()), lambda o: swa_utils.SWALR(o, 0.005, anneal_epochs=2)),
        (
            lambda m: torch.optim.Adafactor(in_two_groups(m)),
            lambda o: lr_scheduler.OneCycleLR(o, 0.02, 12, cycle_momentum=False),
        ),
        (
            lambda m: optim.AdamW(in_two_groups(m)),
            lambda o: lr_scheduler.CosineAnnealingLR(as_lr(o, "weight_decay"), 3),
        ),
        (
            lambda m: optim.SGD(
                m.parameters(), lr=torch.tensor(0.1), transforms=[optim.transforms.lookahead(2)]
            ),
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.CosineAnnealingLR(o, 2)], [1]
            ),
        ),
        (lambda m: SOAP(m.parameters()), lambda o: optim.CyclicLR(o, 0.001, 0.01, 2)),
        (lambda m: SAM(m.parameters()), lambda o: lr_scheduler.PolynomialLR(o, 4)),
        (lambda m: ScheduleFreeAdamW(m.parameters()), lambda o: lr_scheduler.ConstantLR(o, 0.5, 2)),
    ],
)
@pytest.mark.parametrize("left_after", [1, 5])
def test_a_training_that_is_left_and_taken_up_again_has_the_same_weights(
    optimizer_of: Callable[[nn.Module], Any], scheduler_of: Callable[[Any], Any], left_after: int, data: Data
) -> None:
    def fresh(seed: int) -> Training:
        torch.manual_seed(seed)
        model = mlp(8, 10)
        optimizer = optimizer_of(model)
        return Training(model, optimizer, data, batch_size=BATCH, seed=0, scheduler=scheduler_of(optimizer))

    at_once, left, taken_up = fresh(0), fresh(0), fresh(1)
    list(at_once.epochs(EPOCHS))
    for _ in range(left_after):
        left.step()
    checkpoint = io.BytesIO(serialised(left.state_dict()))
    taken_up.load_state_dict(torch.load(checkpoint, weights_only=True))
    list(taken_up.epochs(EPOCHS))
    for weight, expected in zip(taken_up.model.parameters(), at_once.model.parameters(), strict=True):
        assert torch.equal(weight, expected)
    assert taken_up.optimizer.param_groups[-1]["lr"] == at_once.optimizer.param_groups[-1]["lr"]


def test_the_schedule_of_another_option_is_stepped(data: Data) -> None:
    model = mlp(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    schedule = lr_scheduler.ExponentialLR(as_lr(optimizer, "weight_decay"), 0.5)
    list(Training(model, optimizer, data, batch_size=BATCH, seed=0, scheduler=schedule).epochs(EPOCHS))
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.1 * 0.5**EPOCHS)
    other = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
    with pytest.raises(ValueError, match="belongs to another optimizer"):
        Training(model, other, data, batch_size=BATCH, seed=0, scheduler=schedule)


def test_weights_in_another_order_have_their_own_step_sizes(data: Data) -> None:
    model = network(sparse=False)
    training = Training(model, torch.optim.SGD(in_two_groups(model)), data, batch_size=BATCH, seed=0)
    list(training.epochs(1))
    for name in ("hidden.weight", "hidden.bias", "output.weight", "output.bias"):
        sizes = training.meter.histograms[f"log10_effective_step_size/{name}"]
        assert sizes.numel() <= training.weights[name].numel()
        torch.testing.assert_close(sizes, torch.full_like(sizes, -3.0 if "hidden" in name else -1.0))


def test_weights_that_are_not_trained_are_not_measured(data: Data) -> None:
    """Nobody empties their gradients, which grow from step to step."""
    model = network(sparse=False)
    optimizer = torch.optim.SGD(model.output.parameters(), lr=0.1)
    training = Training(model, optimizer, data, batch_size=BATCH, seed=0)
    (epoch,) = training.epochs(1)
    gradients = [weight.grad for weight in model.output.parameters()]
    assert epoch.grad_norm == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).norm()))
    assert {tag.partition("/")[2] for tag in training.meter.histograms} == {"output.weight", "output.bias"}


@pytest.mark.parametrize(
    ("optimizer_of", "dense_of"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), None),
        (lambda p: optim.SGD(p, lr=0.1), None),
        (lambda p: optim.Adagrad(p, lr=0.1), None),
        (lambda p: torch.optim.SparseAdam(p, lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
    ],
)
def test_sparse_gradients_are_measured_as_dense_ones(optimizer_of: Any, dense_of: Any, data: Data) -> None:
    of_both = []
    for make, sparse in ((optimizer_of, True), (dense_of or optimizer_of, False)):
        torch.manual_seed(0)
        model = Words(sparse)
        training = Training(model, make(model.parameters()), data, batch_size=BATCH * STEPS, seed=0)
        (epoch,) = training.epochs(1)
        of_both.append((training.meter.histograms, epoch.grad_norm, epoch.update_ratio))
    torch.testing.assert_close(*of_both, rtol=1e-4, atol=1e-5)


def test_looking_at_step_sizes_draws_no_random_numbers() -> None:
    class Noisy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            torch.rand(3)
            return super().step(closure)

    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    before = torch.get_rng_state()
    (sizes,) = effective_step_sizes(Noisy([weight], lr=0.1)).values()
    assert sizes.tolist() == pytest.approx([0.1, 0.1])
    assert torch.equal(torch.get_rng_state(), before)
