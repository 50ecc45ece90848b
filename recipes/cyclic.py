"""Does a cyclical learning rate need half the epochs? `python recipes/cyclic.py`.

The paper (Smith, arXiv 1506.01186): 81.4 % of CIFAR-10 after 25,000 iterations with a cyclical rate, which a
constant one reached after 70,000. Here, with SGD with Nesterov momentum 0.9 and all else equal:

1. An LR range test on training rows finds where the loss begins to fall and where the fall is nearly done.
2. `triangular`, `triangular2` and `exp_range` between these bounds are trained for E / 2 epochs, and so is a
   rate that only falls, linearly to zero: does the cycle matter, or only that the rate ends low? A constant
   rate is trained for E / 2 and for E epochs.
3. Each of the six is tried with six settings. The one with the highest mean validation accuracy after the
   last epoch is trained again and measured on the test rows, from several seeds.

The upper bound of the range test is careful: smaller rates would have brought the loss as far, given more
time. So peaks of one, three and ten times that bound are tried.

The claim is borne out if the mean test accuracy of `triangular`, the plain policy, after E / 2 epochs is at
least that of the constant rate after E. The spread, the larger of the two standard deviations over the seeds,
says how much a difference means. A run that diverges counts as 0 % right.

gallery takes some minutes; full, all of Fashion-MNIST with a CNN, some hours.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LinearLR, LRScheduler

import torchopt_course as optim
from recipes.common.data import Data, Split
from recipes.common.errors import UserError
from recipes.common.loop import loss_with_gradient, train
from recipes.common.pictures import Figure, decorate, figure
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.schedule_runs import Run, Size, ends, lead, measure, points, recorded, search
from recipes.parts.statistics import mean_curve
from torchopt_course.lr_scheduler import RangeTest

CLAIM = "A cyclical learning rate reaches the accuracy of the best constant rate in half the epochs."
SIZES = {
    "smoke": Size("digits", "mlp", rows=300, epochs=8, batch_size=32, search_seeds=1, seeds=2),
    "gallery": Size("fashion-mnist", "mlp", 8_000, epochs=12, batch_size=128, search_seeds=2, seeds=3),
    "full": Size("fashion-mnist", "cnn", None, epochs=8, batch_size=128, search_seeds=1, seeds=3),
}
ScheduleName = Literal["constant", "linear decay", "triangular", "triangular2", "exp_range"]


@dataclass(frozen=True)
class Setting:
    """Everything that can be turned in one of the schedules."""

    schedule: ScheduleName
    lr: float
    """The highest rate."""
    epochs: int
    base_lr: float = 0.0
    """Cyclical: the lowest rate, where each cycle begins and ends."""
    cycles: int = 0
    """Cyclical: how many of them fill the training."""


def to_try(found: RangeTest, epochs: int) -> dict[str, list[Setting]]:
    """Six settings for each contender. A constant or decaying rate has nothing else to turn."""
    if found.base_lr is None or found.max_lr is None:
        raise UserError(f"the range test has found no bounds: {found.how}")
    base_lr, peaks, half = found.base_lr, [found.max_lr * times for times in (1, 3, 10)], epochs // 2
    rates = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)

    def cyclical(mode: ScheduleName, counts: Sequence[int]) -> list[Setting]:
        return [Setting(mode, peak, half, base_lr, cycles) for peak in peaks for cycles in counts]

    return {
        "constant": [Setting("constant", lr, epochs) for lr in rates],
        "constant, half": [Setting("constant", lr, half) for lr in rates],
        "linear decay": [Setting("linear decay", lr, half) for lr in rates],
        "triangular": cyclical("triangular", (1, 2)),
        "triangular2": cyclical("triangular2", (2, 4)),  # with one cycle it would be triangular
        "exp_range": cyclical("exp_range", (1, 2)),
    }


def make_scheduler(setting: Setting, optimizer: optim.SGD, steps: int) -> LRScheduler | None:
    """The schedule of a training of so many steps; it goes on after each of them."""
    if setting.schedule == "constant":
        return None
    if setting.schedule == "linear decay":
        return LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    return optim.CyclicLR(
        optimizer,
        setting.base_lr,
        setting.lr,
        step_size_up=math.ceil(steps / (2 * setting.cycles)),  # a cycle too many would end high
        mode=setting.schedule,
        gamma=0.1 ** (1 / steps),  # exp_range: in the end the peak would be a tenth; the others have no gamma
        cycle_momentum=False,  # as in the paper: the contenders differ in nothing but the rate
    )


def train_once(setting: Setting, size: Size, split: Split, seed: int) -> Run:
    """Train with this schedule."""
    data, epochs, batch_size = size.load(split), setting.epochs, size.batch_size
    model, optimizer = size.model_and_optimizer(data, setting.lr, seed)
    how: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    scheduler = make_scheduler(setting, optimizer, epochs * math.ceil(len(data.train_inputs) / batch_size))
    return recorded(train(model, optimizer, data, scheduler=scheduler, every="batch", **how), epochs)


def range_test(size: Size, data: Data, seed: int) -> RangeTest:
    """Raise the rate batch by batch and watch the loss of the training rows."""
    model, optimizer = size.model_and_optimizer(data, 0.01, seed)  # the test sets the rate itself

    def step(rows: Tensor) -> Tensor:
        loss = loss_with_gradient(model, optimizer, data, rows)
        optimizer.step()
        return loss

    order = torch.randperm(len(data.train_inputs), generator=torch.Generator().manual_seed(seed))
    batches = order.split(size.batch_size)
    return optim.lr_range_test(step, batches, model, optimizer, start_lr=1e-5, iterations=200)


def judge(tested: Mapping[str, Sequence[Run]], epochs: int) -> Verdict:
    """The criterion of the docstring above, and whether the cycle matters."""
    cyclic, constant, decay = (tested[name] for name in ("triangular", "constant", "linear decay"))
    ahead = lead(cyclic, constant)
    return Verdict(
        CLAIM,
        ahead[0] >= 0,
        f"triangular had {fmean(ends(cyclic)):.1%} of the test rows right after {epochs // 2} epochs, the "
        f"constant rate {fmean(ends(constant)):.1%} after {epochs}, {points(*ahead)}; against linear decay, "
        f"which has no cycle, triangular is {points(*lead(cyclic, decay))}",
    )


LOOKS = {
    "constant": {"color": "#000000"},
    "constant, half": {"color": "#000000", "linestyle": ":"},
    "linear decay": {"color": "#E69F00"},
    "triangular": {"color": "#0072B2"},
    "triangular2": {"color": "#009E73"},
    "exp_range": {"color": "#CC79A7"},
}


def draw(tested: Mapping[str, Sequence[Run]]) -> Figure:
    """Rate and accuracy by epoch."""
    picture = figure(9, 7)
    rates, accuracies = picture.subplots(2, 1, sharex=True)
    for name, runs in tested.items():
        lrs, epochs = runs[0].lrs, len(runs[0].losses)
        look = {"linewidth": 1.8, "label": name, **LOOKS[name]}
        rates.plot([epochs * step / len(lrs) for step in range(len(lrs))], lrs, **look)
        percent = [100 * share for share in mean_curve(run.accuracies for run in runs)]
        accuracies.plot(range(1, epochs + 1), percent, marker="o", markersize=3, **look)
    level = 100 * fmean(ends(tested["constant"]))
    accuracies.axhline(level, color="0.5", linestyle="--", linewidth=1, label="constant, at its end")
    rates.locator_params(axis="x", integer=True)
    decorate(rates, "", "learning rate")
    decorate(accuracies, "epoch", "test accuracy, % (mean of seeds)")
    accuracies.legend(fontsize=9, loc="lower right")
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Range test, search on validation rows, train the choices, judge."""
    found = range_test(size, size.load("validation"), seed)
    report.picture("range_test", found.figure())
    chosen, searched = search(report, train_once, to_try(found, size.epochs), size, seed)
    tested, rows = measure(report, train_once, chosen, size, seed)
    report.picture("schedules", draw(tested))
    columns = {
        "schedule": "{name}",
        "highest\nrate": "{lr:.2g}",
        "cycles": "{cycles}",
        "epochs": "{epochs}",
        f"test accuracy\n({size.seeds} seeds)": "{mean:.1%} ± {spread:.1%}",
    }
    bounds = {"base_lr": found.base_lr, "max_lr": found.max_lr, "how": found.how}
    verdict = judge(tested, size.epochs)
    report.finish(table_of(rows, columns), rows, verdict, search=searched, range_test=bounds)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
