"""Drop the learning rate when the loss stops falling, not before: `python recipes/plateau.py`.

The lecture: if the loss has not improved within some tolerance for k epochs, drop the learning rate by a
factor of 10. Three schedules train the same network with SGD with Nesterov momentum 0.9:

- constant: the rate stays
- step decay: a tenth of it after so many epochs, written down before the training begins
- plateau: a tenth of it when the loss of rows that are held out from training has not improved for more than
  `patience` epochs

Each is tried with six settings, and the one with the highest validation accuracy at the last epoch is trained
again from several seeds and measured on the test rows. Then the chosen plateau is made to act too early, in
four ways that differ from it in nothing else: without patience; watching the loss of the last batch trained
on instead of the held-out rows'; both; and with a threshold that asks for 30 % less loss to call it an
improvement.

The claim is borne out if, in the mean test accuracy of the last epoch, plateau is better than constant, and
also better than its copy without patience that watches a single batch, each by more than the spread: the
larger of the two standard deviations over the seeds. A run that diverges counts as 0 % right.

Two settings were tried before. With 6,000 rows five epochs at the full rate were enough for all that the test
rows can show, and a rate that was dropped too early did no harm; so there are 20,000, and 5,000 held out. And
the training loss, which plateau watched at first, never stopped falling in 20 epochs, long after learning by
heart had begun; so it watches held-out rows, as one does in practice. gallery takes some minutes; full some
hours.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, StepLR

import torchopt_course as optim
from recipes.common.data import Data, Split
from recipes.common.loop import Epoch, evaluate, train
from recipes.common.pictures import Figure, decorate, figure, plain_log
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.schedule_runs import Run, Size, ends, lead, measure, points, recorded, search
from recipes.parts.statistics import mean_curve

CLAIM = (
    "Dropping the learning rate tenfold once the loss has stopped improving beats a constant rate, "
    "and dropping it too early does harm."
)
SIZES = {
    "smoke": Size("digits", "mlp", rows=300, epochs=6, batch_size=32, search_seeds=1, seeds=2),
    "gallery": Size("fashion-mnist", "mlp", rows=25_000, epochs=20, batch_size=128, search_seeds=1, seeds=3),
    "full": Size("fashion-mnist", "cnn", rows=None, epochs=16, batch_size=128, search_seeds=1, seeds=3),
}


@dataclass(frozen=True)
class Setting:
    """Everything that can be turned in one of the schedules."""

    schedule: Literal["constant", "step decay", "plateau"]
    lr: float
    """The rate of the first epoch."""
    drops: int | None = None
    """Step decay: how often the rate drops; the parts between are of equal length."""
    patience: int | None = None
    """Plateau: epochs without improvement that are put up with."""
    threshold: float = 1e-4
    """Plateau: the share by which the metric must fall to count as an improvement."""
    watched: Literal["held out", "batch"] = "held out"
    """Plateau: the mean loss of rows that are held out, or the loss of the epoch's last batch."""


# The same number for each: a constant rate has nothing else to tune, so it may try twice as many rates.
TRIED = {
    "constant": [Setting("constant", lr) for lr in (0.003, 0.006, 0.012, 0.025, 0.05, 0.1)],
    "step decay": [Setting("step decay", lr, drops=n) for lr in (0.025, 0.05, 0.1) for n in (1, 2)],
    "plateau": [Setting("plateau", lr, patience=k) for lr in (0.025, 0.05, 0.1) for k in (1, 3)],
}


def too_early(healthy: Setting) -> dict[str, Setting]:
    """Copies of a plateau that take noise, or slow progress, for the end of progress."""
    return {
        "no patience": replace(healthy, patience=0),
        "watches one batch": replace(healthy, watched="batch"),
        "both": replace(healthy, patience=0, watched="batch"),
        "threshold 0.3": replace(healthy, threshold=0.3),
    }


def held_out(data: Data) -> tuple[Data, Tensor, Tensor]:
    """The last fifth of the training rows apart, for the rows that are only measured may be the test's."""
    kept = len(data.train_rows) * 4 // 5
    return data.with_rows(slice(kept)), data.train_inputs[kept:], data.train_targets[kept:]


def train_once(setting: Setting, size: Size, split: Split, seed: int) -> Run:
    """Train the network with this schedule, which makes one step after each epoch."""
    data, inputs, targets = held_out(size.load(split))
    model, optimizer = size.model_and_optimizer(data, setting.lr, seed)
    scheduler: LRScheduler
    if setting.patience is not None:
        scheduler = optim.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=setting.patience, threshold=setting.threshold
        )
    else:  # a constant rate is one that drops no time
        parts = (setting.drops or 0) + 1
        scheduler = StepLR(optimizer, step_size=math.ceil(size.epochs / parts), gamma=0.1)

    def epochs() -> Iterator[Epoch]:
        for epoch in train(model, optimizer, data, epochs=size.epochs, batch_size=size.batch_size, seed=seed):
            if isinstance(scheduler, optim.ReduceLROnPlateau):
                watches_rows = setting.watched == "held out"
                scheduler.step(evaluate(model, inputs, targets)[0] if watches_rows else epoch.losses[-1])
            else:
                scheduler.step()
            yield epoch

    return recorded(epochs(), size.epochs)


def epochs_at_first_rate(run: Run) -> float:
    """For how long the rate did not drop."""
    return sum(lr == run.lrs[0] for lr in run.lrs) * len(run.losses) / max(1, len(run.lrs))


def judge(tested: Mapping[str, Sequence[Run]]) -> Verdict:
    """The criterion of the docstring above."""
    plateau = tested["plateau"]
    over_constant, over_early = lead(plateau, tested["constant"]), lead(plateau, tested["both"])
    return Verdict(
        CLAIM,
        over_constant[0] > over_constant[1] and over_early[0] > over_early[1],
        f"plateau ended with {fmean(ends(plateau)):.1%} of the test rows right, {points(*over_constant)} "
        f"against the best constant rate and {points(*over_early)} against its copy without patience that "
        "watched a single batch",
    )


COLORS = {
    "constant": "#000000",
    "step decay": "#E69F00",
    "plateau": "#0072B2",
    "no patience": "#009E73",
    "watches one batch": "#CC79A7",
    "both": "#D55E00",
    "threshold 0.3": "#56B4E9",
}


def draw(tested: Mapping[str, Sequence[Run]]) -> Figure:
    """Rate, loss and accuracy by epoch: the three schedules, and beside them plateaus that act too early."""
    picture = figure(9, 8)
    axes = picture.subplots(3, 2, sharex=True, sharey="row")
    panels = {
        "Three schedules": list(TRIED),
        "Plateau, and what makes it act too early": ["plateau", *(n for n in tested if n not in TRIED)],
    }
    for column, (title, names) in enumerate(panels.items()):
        rates, losses, accuracies = axes[:, column]
        for name in names:
            look = {"color": COLORS[name], "linewidth": 1.8, "label": name}
            lrs, epochs = tested[name][0].lrs, len(tested[name][0].losses)
            # The seeds drop at different epochs: a mean of rates would be a rate that none of them had.
            rates.plot([epochs * (step + 1) / len(lrs) for step in range(len(lrs))], lrs, **look)
            losses.plot(range(1, epochs + 1), mean_curve(run.losses for run in tested[name]), **look)
            percent = [100 * share for share in mean_curve(run.accuracies for run in tested[name])]
            accuracies.plot(range(1, epochs + 1), percent, **look)
        rates.set_yscale("log")
        losses.set_yscale("log")
        plain_log(losses.yaxis)
        rates.legend(fontsize=9)
        rates.locator_params(axis="x", integer=True)
        decorate(rates, "", "" if column else "learning rate (first seed)", title)
        decorate(losses, "", "" if column else "training loss (mean of seeds)")
        decorate(accuracies, "epoch", "" if column else "test accuracy, % (mean of seeds)")
    return picture


def run(report: Report, size: Size, seed: int) -> None:
    """Search on validation rows, train the choices, judge."""
    chosen, searched = search(report, train_once, TRIED, size, seed)
    chosen |= too_early(chosen["plateau"])
    tested, rows = measure(report, train_once, chosen, size, seed)
    report.picture("schedules", draw(tested))
    for row in rows:
        runs = tested[row["name"]]
        row["epochs_at_first_rate"] = fmean(epochs_at_first_rate(one) for one in runs)
        row["training_loss"] = fmean(one.losses[-1] for one in runs)
    columns = {
        "schedule": "{name}",
        "first rate": "{lr:g}",
        "drops": "{drops}",
        "patience": "{patience}",
        "epochs at the\nfirst rate": "{epochs_at_first_rate:.1f}",
        "training\nloss": "{training_loss:.3f}",
        f"test accuracy\n({size.seeds} seeds)": "{mean:.1%} ± {spread:.1%}",
    }
    report.finish(table_of(rows, columns), rows, judge(tested), search=searched)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
