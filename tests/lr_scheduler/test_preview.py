"""The preview shows what training will do, and touches nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

import torchopt_course as oc
from torchopt_course import preview_schedule
from torchopt_course.lr_scheduler import as_lr

from .twins import OPTIMIZERS, make_optimizer, rates, step_as_trained

SCHEDULES: dict[str, Any] = {
    "ours": lambda optimizer: oc.CyclicLR(optimizer, 0.1, 0.5, 3, mode="triangular2"),
    "CyclicLR": lambda optimizer: torch_schedulers.CyclicLR(optimizer, 0.1, 0.5, 3),
    "OneCycleLR": lambda optimizer: torch_schedulers.OneCycleLR(optimizer, 0.5, total_steps=20),
    "StepLR": lambda optimizer: torch_schedulers.StepLR(optimizer, 4),
    "SequentialLR": lambda optimizer: torch_schedulers.SequentialLR(
        optimizer,
        [torch_schedulers.LinearLR(optimizer), oc.CyclicLR(optimizer, 0.1, 0.5, 3)],
        milestones=[5],
    ),
}


@pytest.mark.filterwarnings("error:Detected call", "ignore:The epoch parameter")
@pytest.mark.parametrize("schedule", [*SCHEDULES])
@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_shows_what_the_schedule_does(schedule: str, name: str) -> None:
    optimizer = make_optimizer(name, groups=2, lr=0.02)
    optimizer.param_groups[1]["lr"] = 0.03
    before = str(optimizer.param_groups)
    shown = preview_schedule(SCHEDULES[schedule], 15, like=optimizer)
    assert str(optimizer.param_groups) == before
    assert "step" not in vars(optimizer)  # torch's schedulers wrap it

    scheduler = SCHEDULES[schedule](optimizer)
    for lrs, momenta in zip(shown.lrs, shown.momenta, strict=True):
        expected = [(r[0], r[2] if "Adam" in name else r[1]) for r in rates(optimizer)]
        assert list(zip(lrs, momenta, strict=True)) == expected
        step_as_trained(scheduler)


def test_without_an_optimizer_rates_are_factors() -> None:
    shown = preview_schedule(lambda optimizer: torch_schedulers.ExponentialLR(optimizer, 0.5), 4)
    assert shown.lrs == [[1.0], [0.5], [0.25], [0.125]]
    assert shown.momenta == [[0.9]] * 4
    assert preview_schedule(SCHEDULES["ours"], 0).lrs == []


def test_begins_anew_with_an_optimizer_that_has_been_scheduled() -> None:
    optimizer = make_optimizer(lr=0.5)
    scheduler = torch_schedulers.ExponentialLR(optimizer, 0.5)
    step_as_trained(scheduler)
    shown = preview_schedule(
        lambda o: torch_schedulers.LambdaLR(o, lambda step: 0.5**step), 3, like=optimizer
    )
    assert shown.lrs == [[0.25], [0.125], [0.0625]]


def test_tensor_rates_are_left_alone() -> None:
    rate, beta = torch.tensor(0.5), torch.tensor(0.75)
    optimizer = make_optimizer("torch.Adam", groups=2, lr=rate, betas=(beta, torch.tensor(0.99)))
    shown = preview_schedule(SCHEDULES["ours"], 5, like=optimizer)
    assert shown.lrs[1] == [pytest.approx(0.1 + 0.4 / 3)] * 2
    assert (rate.item(), beta.item()) == (0.5, 0.75)


def test_an_optimizer_without_momentum() -> None:
    optimizer = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))])
    shown = preview_schedule(lambda o: oc.CyclicLR(o, 0.1, 1.0, cycle_momentum=False), 2, like=optimizer)
    assert math.isnan(shown.momenta[0][0])


def test_plateau_needs_metrics() -> None:
    def make(optimizer: Any) -> Any:
        return oc.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)

    shown = preview_schedule(make, 5, metrics=[3.0, 3.0, 3.0, 3.0, 3.0])
    assert shown.lrs == [[1.0], [1.0], [1.0], [0.5], [0.5]]
    for metrics, said in ((None, "got none"), ([1.0], "got 1")):
        with pytest.raises(ValueError, match=f"needs 5 metrics, {said}"):
            preview_schedule(make, 5, metrics=metrics)
    with pytest.raises(ValueError, match="steps: -1"):
        preview_schedule(make, -1)


def test_figure_has_a_line_for_each_group() -> None:
    shown = preview_schedule(SCHEDULES["ours"], 7, like=make_optimizer(groups=2))
    upper, lower = shown.figure().axes
    assert [list(line.get_ydata()) for line in upper.lines] == [
        list(group) for group in zip(*shown.lrs, strict=True)
    ]
    assert [list(line.get_ydata()) for line in lower.lines] == [
        list(group) for group in zip(*shown.momenta, strict=True)
    ]
    preview_schedule(SCHEDULES["ours"], 0).figure()


def test_a_scheduler_of_another_optimizer_is_refused_and_not_stepped() -> None:
    mine = oc.CyclicLR(make_optimizer(), 0.1, 0.5, 3)
    with pytest.raises(ValueError, match="CyclicLR belongs to an optimizer of its own, SGD"):
        preview_schedule(lambda optimizer: mine, 7)
    assert mine.last_epoch == 0
    chained = torch_schedulers.ChainedScheduler([torch_schedulers.StepLR(mine.optimizer, 2)])
    with pytest.raises(ValueError, match="ChainedScheduler belongs to"):
        preview_schedule(lambda optimizer: chained, 7)


def test_messages_name_the_optimizer_that_is_shown() -> None:
    like = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="Adagrad has neither"):
        preview_schedule(SCHEDULES["ours"], 2, like=like)


@pytest.mark.parametrize("kind", [oc.ReduceLROnPlateau, torch_schedulers.ReduceLROnPlateau])
def test_groups_that_share_a_tensor_rate_are_shown_as_they_will_be(kind: Any) -> None:
    """Torch's plateau reduces such a rate once for each of its groups."""
    optimizer = make_optimizer("torch.Adam", groups=2, lr=torch.tensor(1.0))

    def make(optimizer: Any) -> Any:
        return kind(optimizer, patience=0, factor=0.5)

    shown = preview_schedule(make, 4, like=optimizer, metrics=[1.0] * 4)
    scheduler = make(optimizer)
    for lrs in shown.lrs:
        assert lrs == [float(group["lr"]) for group in optimizer.param_groups]
        scheduler.step(1.0)


def test_figure_leaves_out_what_is_not_there_and_shows_small_rates() -> None:
    adagrad = torch.optim.Adagrad([torch.nn.Parameter(torch.ones(1))])
    (axes,) = (
        preview_schedule(lambda o: torch_schedulers.ExponentialLR(o, 0.99), 9, like=adagrad).figure().axes
    )
    assert axes.get_yscale() == "linear"
    falling = preview_schedule(lambda o: torch_schedulers.StepLR(o, 10, gamma=0.01), 40)
    assert falling.figure().axes[0].get_yscale() == "log"
    to_zero = preview_schedule(lambda o: torch_schedulers.LinearLR(o, 1.0, 0.0, 5), 40)
    assert to_zero.figure().axes[0].get_yscale() == "linear"


def test_another_option_is_shown_in_the_place_of_the_rate() -> None:
    optimizer = make_optimizer(lr=0.5, weight_decay=0.1)

    def make(shown: Any) -> Any:
        return torch_schedulers.ExponentialLR(shown, 0.5)

    assert preview_schedule(make, 3, like=as_lr(optimizer, "weight_decay")).lrs == [[0.1], [0.05], [0.025]]
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    with pytest.raises(ValueError, match=r"is one like=as_lr\(optimizer, option\)"):
        preview_schedule(lambda shown: make(as_lr(shown, "weight_decay")), 3, like=optimizer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            (torch_schedulers.StepLR(make_optimizer(), 1), 3),
            "must be a function, as `lambda optimizer: StepLR",
        ),
        ((lambda optimizer: None, 3), "must return a scheduler, as `lambda .* does, not None"),
        (
            (lambda optimizer: [torch_schedulers.StepLR(optimizer, 1)], 3),
            r"must return a scheduler, .* not \[",
        ),
        ((SCHEDULES["ours"], 2.5), r"steps: 2.5 \(expected a whole number\)"),
        ((SCHEDULES["ours"], "3"), r"steps: '3' \(expected a whole number\)"),
        ((SCHEDULES["ours"], 3, torch.nn.Linear(1, 1)), "like must be an Optimizer, got Linear"),
    ],
)
def test_mistakes_are_named(arguments: tuple[Any, ...], words: str) -> None:
    make, steps, *like = arguments
    with pytest.raises(TypeError, match=words):
        preview_schedule(make, steps, **({"like": like[0]} if like else {}))
