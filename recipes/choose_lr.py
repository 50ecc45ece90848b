"""Choose every optimizer's learning rate on the validation split: `python recipes/choose_lr.py`.

Each optimizer is trained with each rate of a logarithmic grid from several seeds, on 80 % of the training
part, and measured on the other 20 %. The test part is never touched, so that the accuracy which the other
recipes report on it is honest.

The rate with the lowest validation loss in the last ten epochs wins. The accuracy would be a worse judge:
288 rows allow only steps of 0.35 %, and it favours rates so large that the weights still jump about at the
end; in the mean they do well, but a run that ends on the wrong epoch does not.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from recipes.common.command_line import parse, plain_endings, progress_bar
from recipes.common.errors import TrainingDivergedError
from recipes.common.loop import one_thread
from recipes.common.optimizers import LEARNING_RATES, OPTIMIZERS, OptimizerName
from recipes.common.table import table
from recipes.train import Config
from recipes.trainer.measure import Epoch
from recipes.trainer.run import set_up

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
LAST_EPOCHS = 10


@dataclass(frozen=True)
class Options:
    """Choose every optimizer's learning rate on the validation split, without a look at the test rows.

    Prints the validation loss for every rate of a grid, and the winners. Takes some five minutes.
    """


def validation_loss(config: Config, seeds: Iterable[int], on_run: Callable[[], object]) -> float:
    """Mean of the last epochs of all seeds; infinite for a rate that diverges from one of them."""
    last: list[Epoch] = []
    for seed in seeds:
        training = set_up(replace(config, seed=seed, split="validation"))
        try:
            with one_thread():
                last += list(training.epochs(config.epochs))[-LAST_EPOCHS:]
        except TrainingDivergedError:
            return math.inf
        on_run()
    return fmean(epoch.loss for epoch in last)


def winner(losses: dict[float, float]) -> float:
    """The rate with the lowest loss."""
    return min(losses, key=losses.__getitem__)


def losses_table(losses: dict[OptimizerName, dict[float, float]]) -> str:
    """A row for each optimizer, a column for each rate; a star marks the winner of the row."""
    rows = [
        [name, *(f"{row[rate]:.4f}{'*' if rate == winner(row) else ' '}" for rate in GRID)]
        for name, row in losses.items()
    ]
    return table(["", *(f"{rate:g} " for rate in GRID)], rows)


def main() -> None:
    """Search the grid, print the table and the winners."""
    parse(Options)
    losses: dict[OptimizerName, dict[float, float]] = {name: {} for name in OPTIMIZERS}
    with plain_endings():
        with progress_bar(len(OPTIMIZERS) * len(GRID) * len(SEEDS), "run") as bar:
            for name, row in losses.items():
                bar.set_description(f"{name:8}")
                for lr in GRID:
                    row[lr] = validation_loss(Config(optimizer=name, lr=lr), SEEDS, bar.update)

        winners = {name: winner(row) for name, row in losses.items()}
        print(
            f"Validation loss by learning rate, {len(SEEDS)} seeds, last {LAST_EPOCHS} epochs (* the lowest)"
        )
        print(losses_table(losses))
        print(f"LEARNING_RATES = {winners}")
        committed = "the same" if winners == LEARNING_RATES else str(LEARNING_RATES)
        print(f"recipes/common/optimizers.py has {committed}.")


if __name__ == "__main__":
    main()
