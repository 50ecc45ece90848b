"""Adam or momentum? All optimizers under equal budgets: `python recipes/optimizers.py`.

The lecture's advice: "In a hurry: Adam. With time: SGD with momentum, tuned."

Experiment, as DeepOBS (Schneider et al., 2019) and AlgoPerf (Dahl et al., 2023) compare:

- Two budgets, a short one and one so long that the curves are flat before its end. Within each, every
  optimizer is given the same: one training for each learning rate of one grid, with a constant rate and with
  a cosine decay to zero. All else is default.
- The rate and the schedule with the highest accuracy on the validation rows at the end are its choice. It is
  trained again from fresh seeds, and the test rows are measured once, with the last weights.
- Nobody tunes in a real hurry: the short budget is also given to every optimizer's default rate, constant.
- Steps to a target accuracy on the validation rows: the median over the seeds; a missed target is infinite.

The verdict, agreed before any test row was measured, but after trial runs on validation rows. One optimizer
is ahead of another if its mean test accuracy is higher by more than two standard errors of the difference
over the seeds. The advice is borne out if

1. after the short budget Adam is ahead of Momentum with default rates, and Momentum not ahead of Adam with
   tuned ones, and
2. after the long budget, both tuned, Momentum is ahead of Adam.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch

from recipes.common.pictures import COLORS, Figure, decorate, figure
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.statistics import lead
from recipes.parts.trials import CONTENDERS, Budget, Contest, Result, Schedule, Task, Trial, run_trial

CLAIM = "In a hurry: Adam; with time: SGD with momentum, tuned"
SCHEDULES: tuple[Schedule, ...] = ("constant", "cosine")


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    task: Task
    contenders: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int
    short: Budget
    long: Budget


def half_decades(first: int, last: int) -> tuple[float, ...]:
    """10^(first / 2) to 10^(last / 2), two rates in each power of ten."""
    return tuple(10 ** (half / 2) for half in range(first, last + 1))


# Everybody's grid holds everybody's default rate, 0.001 or 0.01.
SIZES = {
    "smoke": Size(
        Task("digits", train_rows=320, validation_rows=288, model="mlp", batch_size=32),
        tuple(CONTENDERS), rates=(0.001, 0.01, 0.1), seeds=2,
        short=Budget(1, target=0.4), long=Budget(3, target=0.6),
    ),
    "gallery": Size(
        Task("fashion-mnist", train_rows=2_000, validation_rows=2_000, model="mlp", batch_size=32),
        tuple(CONTENDERS), rates=half_decades(-7, 0), seeds=5,
        short=Budget(2, target=0.75), long=Budget(30, target=0.83),
    ),
    # For the two that the advice is about: a network of convolutions, until the curves are flat.
    "full": Size(
        Task("fashion-mnist", train_rows=10_000, validation_rows=5_000, model="lenet", batch_size=64),
        ("Momentum", "Adam"), rates=half_decades(-7, -1), seeds=5,
        short=Budget(1, target=0.75), long=Budget(30, target=0.89),
    ),
}  # fmt: skip


def run(report: Report, size: Size, seed: int) -> None:
    """Tune, train the choices from fresh seeds, judge."""
    budgets = (size.short, size.long)
    trials = [trial for budget in budgets for trial in tuning_trials(size, budget)]
    tuning = report.train_all(run_trial, {trial: [(size.task, trial, seed)] for trial in trials}, "tuning")
    accuracies = {trial: outcome.accuracy[-1] for trial, [outcome] in tuning.items()}

    contests = Contest(size.short, False), Contest(size.short, True), Contest(size.long, True)
    chosen = [
        (contest, choice(contest, name, accuracies)) for contest in contests for name in size.contenders
    ]
    jobs = {(contest, trial): final_jobs(size, trial, seed) for contest, trial in chosen}
    results = [Result(*key, outs) for key, outs in report.train_all(run_trial, jobs, "final").items()]

    for result in results:
        tag = f"{result.contest}/{result.choice.optimizer}".replace(", ", "/")
        words = "Validation accuracy after the step; mean over the seeds."
        report.curve(tag, words, result.mean_curve, result.outcomes[0].steps)
    by_rate = {b: {name: sensitivity(name, b, accuracies) for name in size.contenders} for b in budgets}
    by_contest = {contest: [r for r in results if r.contest == contest] for contest in contests}
    report.picture("sensitivity", draw_sensitivity(by_rate))
    report.picture("validation_accuracy", draw_curves(by_contest))
    report.picture("test_accuracy", draw_spread(by_contest))
    rows = [row(result, by_rate[result.contest.budget][result.choice.optimizer]) for result in results]
    report.finish(text(rows), rows, verdict(results))


def tuning_trials(size: Size, budget: Budget) -> list[Trial]:
    """The same trainings for every optimizer: each rate with each schedule."""
    every = product(size.contenders, SCHEDULES, size.rates)
    return [Trial(name, lr, schedule, budget.epochs) for name, schedule, lr in every]


def choice(contest: Contest, name: str, accuracies: Mapping[Trial, float]) -> Trial:
    """What did best on the validation rows, or what the optimizer does if it is told nothing."""
    epochs = contest.budget.epochs
    if not contest.tuned:
        return Trial(name, default_rate(name), "constant", epochs)
    mine = [trial for trial in accuracies if (trial.optimizer, trial.epochs) == (name, epochs)]
    return max(mine, key=accuracies.__getitem__)


def default_rate(name: str) -> float:
    """The learning rate of an optimizer that is told nothing."""
    return float(CONTENDERS[name]([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"])


def final_jobs(size: Size, chosen: Trial, seed: int) -> list[tuple[Task, Trial, int, int, bool]]:
    """A choice from fresh seeds, looked at often, and on the test rows."""
    looks = max(10, chosen.epochs)
    return [(size.task, chosen, seed + n, looks, True) for n in range(1, size.seeds + 1)]


def sensitivity(name: str, budget: Budget, accuracies: Mapping[Trial, float]) -> dict[float, float]:
    """The better schedule's validation accuracy at each rate."""
    by_rate: dict[float, float] = {}
    for trial, accuracy in accuracies.items():
        if (trial.optimizer, trial.epochs) == (name, budget.epochs):
            by_rate[trial.lr] = max(accuracy, by_rate.get(trial.lr, 0.0))
    return by_rate


def verdict(results: Sequence[Result]) -> Verdict:
    """The criterion at the top of this file, applied."""
    adam, momentum = (
        [result.tests for result in results if result.choice.optimizer == name]
        for name in ("Adam", "Momentum")
    )
    # Adam's leads; below minus two standard errors Momentum is ahead.
    default, short, long = (lead(ours, theirs) for ours, theirs in zip(adam, momentum, strict=True))
    hurry = default[0] > 2 * default[1] and short[0] >= -2 * short[1]
    time = long[0] < -2 * long[1]
    budgets = [result.contest.budget for result in results]
    held = {True: "held", False: "did not hold"}
    evidence = (
        f"the first half {held[hurry]}, the second {held[time]}; "
        f"Adam's lead over Momentum in test accuracy was {points(*default)} after {budgets[0]} "
        f"with default rates, {points(*short)} with tuned ones, and {points(*long)} after {budgets[-1]} "
        f"with tuned ones (means of {len(adam[0])} seeds ± standard error)"
    )
    return Verdict(CLAIM, hurry and time, evidence)


def points(mean: float, error: float) -> str:
    """In percentage points; never a lead of "-0.0"."""
    return f"{round(100 * mean, 1) + 0.0:+.1f} ± {100 * error:.1f} points"


def row(result: Result, by_rate: Mapping[float, float]) -> dict[str, Any]:
    """A line of the table as numbers."""
    contest, chosen = result.contest, result.choice
    return {
        "contest": str(contest),
        "epochs": contest.budget.epochs,
        "optimizer": chosen.optimizer,
        "lr": chosen.lr,
        "schedule": chosen.schedule,
        "rate_at_edge": contest.tuned and chosen.lr in (min(by_rate), max(by_rate)),
        "target_accuracy": contest.budget.target,
        "median_steps_to_target": result.median_steps,
        "test_accuracy": fmean(result.tests),
        "test_accuracy_spread": stdev(result.tests),
        "test_accuracy_of_seeds": result.tests,
        "good_rates": sum(accuracy >= max(by_rate.values()) - 0.02 for accuracy in by_rate.values()),
        "rates": len(by_rate),
    }


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each contest."""
    parts = []
    for contest in dict.fromkeys(row["contest"] for row in rows):
        mine = [row for row in rows if row["contest"] == contest]
        columns = {
            "": "{optimizer}",
            "rate": "{lr:.2g}{rate_at_edge}",
            "schedule": "{schedule}",
            f"steps to\n{mine[0]['target_accuracy']:.0%}": "{median_steps_to_target:.0f}",
            "test accuracy": "{test_accuracy:.1%} ± {test_accuracy_spread:.1%}",
            "good rates": "{good_rates} of {rates}",
        }
        parts.append(f"{contest}\n{table_of(mine, columns, missing='missed')}")
    notes = (
        "test accuracy: mean ± standard deviation over the seeds; steps: median over the seeds\n"
        "good rates: within 2 points of the best on the validation rows; !: the end of the grid"
    )
    return "\n\n".join([*parts, notes])


# Adam's relatives often take Adam's very path: broken lines let it be seen below them.
DASHES = {"AMSGrad": "--", "AdamW": ":"}


def draw_sensitivity(by_rate: Mapping[Budget, Mapping[str, Mapping[float, float]]]) -> Figure:
    """How much it matters to know the learning rate: accuracy at each rate, for each budget and optimizer."""
    picture = figure(9, 4)
    panels = zip(picture.subplots(1, len(by_rate), sharey=True), by_rate.items(), strict=True)
    for axes, (budget, lines) in panels:
        for name, line in lines.items():
            axes.semilogx(line.keys(), line.values(), DASHES.get(name, "-"), color=COLORS[name], label=name)
            best = max(line, key=line.__getitem__)
            axes.plot(best, line[best], "*", color=COLORS[name], markersize=11)
        decorate(axes, "learning rate", "", f"after {budget}")
    picture.axes[0].set_ylabel("validation accuracy")
    picture.suptitle("A star: the rate that was chosen", fontsize=11)
    picture.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def draw_curves(by_contest: Mapping[Contest, Sequence[Result]]) -> Figure:
    """Accuracy on the way: mean over the seeds, and the band between the worst and the best."""
    picture = figure(11, 4)
    panels = zip(picture.subplots(1, len(by_contest)), by_contest.items(), strict=True)
    for axes, (contest, results) in panels:
        for result in results:
            name, steps = result.choice.optimizer, result.outcomes[0].steps
            axes.plot(steps, result.mean_curve, DASHES.get(name, "-"), color=COLORS[name], label=name)
            if name in ("Adam", "Momentum"):  # eight bands would hide each other
                seeds = list(zip(*(outcome.accuracy for outcome in result.outcomes), strict=True))
                low, high = [min(seen) for seen in seeds], [max(seen) for seen in seeds]
                axes.fill_between(steps, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
        axes.axhline(contest.budget.target, color="0.4", linestyle=":", label="target")
        decorate(axes, "step", "", str(contest))
    picture.axes[0].set_ylabel("validation accuracy, mean of the seeds")
    picture.suptitle("Bands, for Adam and Momentum only: from the worst seed to the best", fontsize=11)
    picture.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return picture


def draw_spread(by_contest: Mapping[Contest, Sequence[Result]]) -> Figure:
    """Test accuracy: a dot for each seed, a bar for their mean."""
    picture = figure(11, 4)
    panels = zip(picture.subplots(1, len(by_contest), sharey=True), by_contest.items(), strict=True)
    for axes, (contest, results) in panels:
        for result in results:
            name, percent = result.choice.optimizer, [100 * accuracy for accuracy in result.tests]
            axes.plot(percent, [name] * len(percent), "o", color=COLORS[name], alpha=0.6)
            axes.plot(fmean(percent), name, "|", color=COLORS[name], markersize=22, markeredgewidth=2.5)
        decorate(axes, "test accuracy in %", "", str(contest))
    picture.axes[0].invert_yaxis()  # shared, so in all: the first name on top
    picture.suptitle("A dot for each seed, a bar for their mean", fontsize=11)
    return picture


if __name__ == "__main__":
    main(__doc__, SIZES, run)
