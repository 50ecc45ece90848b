"""Any schedule and any optimizer of torch's trains in both loops, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import torchopt_course as optim
from recipes.common.data import Data, load_data
from recipes.common.loop import train
from recipes.common.model import mlp
from recipes.common.schedulers import stepped_every
from recipes.trainer.training import Training
from recipes.zoo import ZOO, Muon, ScheduleFreeAdamW

BATCH, STEPS, EPOCHS = 50, 3, 3
SCHEDULES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "step": ("epoch", lambda o: lr_scheduler.StepLR(o, 2, gamma=0.1)),
    "cosine": ("epoch", lambda o: lr_scheduler.CosineAnnealingLR(o, 3)),
    "restarts": ("epoch", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2)),
    "lambda": ("epoch", lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch)),
    "one cycle": ("batch", lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9)),
    "cyclic": ("batch", lambda o: optim.CyclicLR(o, 0.01, 0.1, step_size_up=4)),
    "torch's cyclic": ("batch", lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4)),
    "sequence": (
        "epoch",
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [1]
        ),
    ),
    "chain": (
        "batch",
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=False)]),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", "validation").first(BATCH * STEPS)


def trained(how: str, data: Data, optimizer: Any, model: Any, scheduler: Any = None) -> Any:
    """The epochs of one of the two loops."""
    if how == "shared":
        return train(model, optimizer, data, epochs=EPOCHS, batch_size=BATCH, seed=0, scheduler=scheduler)
    return Training(model, optimizer, data, batch_size=BATCH, seed=0, scheduler=scheduler).epochs(EPOCHS)


@pytest.mark.parametrize("how", ["shared", "train.py"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_has_the_rates_that_torchs_documentation_gives_it(name: str, how: str, data: Data) -> None:
    every, make = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01, momentum=0.9)
    scheduler = make(optimizer)
    expected = []
    for _ in range(EPOCHS):
        for _ in range(STEPS):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if every == "batch":
                scheduler.step()
        if every == "epoch":
            scheduler.step()

    model = mlp(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scheduler = make(optimizer)
    assert stepped_every(scheduler, optimizer) == every
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    list(trained(how, data, optimizer, model, scheduler))
    assert seen == pytest.approx(expected)


def mixed(o: Any) -> Any:
    return lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.CyclicLR(o, 0.01, 0.1)], [1])


@pytest.mark.parametrize("how", ["shared", "train.py"])
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (mixed, ValueError, "SequentialLR has parts that are stepped after every batch"),
        (
            lambda o: lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)]), 1),
            ValueError,
            "another optimizer",
        ),
        (lambda o: object(), TypeError, "not object"),
    ],
)
def test_what_cannot_be_stepped_rightly_is_refused(
    make: Any, error: type[Exception], words: str, how: str, data: Data
) -> None:
    model = mlp(8, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with pytest.raises(error, match=words):
        list(trained(how, data, optimizer, model, make(optimizer)))


@pytest.mark.parametrize("how", ["shared", "train.py"])
def test_an_optimizer_of_another_model_is_refused(how: str, data: Data) -> None:
    with pytest.raises(ValueError, match="SGD trains none of the weights of this model"):
        list(trained(how, data, torch.optim.SGD(mlp(8, 10).parameters()), mlp(8, 10)))


def test_what_would_change_nothing_is_refused_also_where_the_caller_says_when(data: Data) -> None:
    model = mlp(8, 10)
    other = lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)]), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    how: Any = {"epochs": 1, "batch_size": BATCH, "seed": 0, "scheduler": other, "every": "batch"}
    with pytest.raises(ValueError, match="another optimizer"):
        list(train(model, optimizer, data, **how))


class Wrapper(torch.optim.Optimizer):
    """As a Lookahead: the groups are those of the optimizer inside, in the same list or one of its own."""

    def __init__(self, inner: torch.optim.Optimizer, own_list: bool) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner
        if not own_list:
            self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


@pytest.mark.parametrize("own_list", [False, True])
@pytest.mark.parametrize("how", ["shared", "train.py"])
def test_the_schedule_of_a_wrapped_optimizer_changes_the_rate(how: str, own_list: bool, data: Data) -> None:
    model = mlp(8, 10)
    inner = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = lr_scheduler.ExponentialLR(inner, 0.5)
    wrapper = Wrapper(inner, own_list)
    list(trained(how, data, wrapper, model, schedule))
    assert wrapper.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**EPOCHS)


class Needs(torch.optim.SGD):
    """Its learning rate has no default."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr)


class Extra(torch.optim.SGD):
    """It has an option of its own, and reads it in every step."""

    def __init__(self, params: Any, lr: float, *, clip: float) -> None:
        super().__init__(params, lr=lr)
        self.clip = clip

    def step(self, closure: Any = None) -> Any:
        assert self.clip == 1.0
        return super().step(closure)


@pytest.mark.parametrize("how", ["shared", "train.py"])
@pytest.mark.parametrize(
    "make",
    [
        *(cls for cls in ZOO if cls is not Muon),  # which takes matrices only
        torch.optim.NAdam, torch.optim.Adafactor, torch.optim.Adadelta, torch.optim.ASGD,
        torch.optim.LBFGS, lambda p: torch.optim.Adam(p, fused=True), lambda p: Needs(p, 0.1),
        lambda p: Extra(p, 0.1, clip=1.0),
    ],
)  # fmt: skip
def test_any_optimizer_trains(make: Any, how: str, data: Data) -> None:
    torch.manual_seed(0)
    model = mlp(8, 10)
    before = [p.detach().clone() for p in model.parameters()]
    *_, last = trained(how, data, make(model.parameters()), model)
    assert last.epoch == EPOCHS
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("how", ["shared", "train.py"])
def test_schedule_free_weights_are_measured_where_they_are_good(how: str, data: Data) -> None:
    """The accuracy is that of the averaged weights, which the model is left with."""
    torch.manual_seed(0)
    model = mlp(8, 10)
    optimizer = ScheduleFreeAdamW(model.parameters())
    *_, last = trained(how, data, optimizer, model)
    assert optimizer.param_groups[0]["train_mode"] is False
    with torch.no_grad():
        right = model(data.eval_inputs).argmax(dim=1) == data.eval_targets
    assert last.accuracy == pytest.approx(right.double().mean().item())
