"""Train one network with each of five optimizers: `python recipes/five_optimizers.py --logdir runs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.command_line import parse, plain_endings, progress_bar
from recipes.common.optimizers import OPTIMIZERS, OptimizerName
from recipes.common.table import table_of
from recipes.common.tensorboard import tensorboard_command
from recipes.train import Config
from recipes.trainer.measure import Epoch
from recipes.trainer.run import Result, run

FIVE: tuple[OptimizerName, ...] = ("sgd", "momentum", "adagrad", "rmsprop", "adam")


@dataclass(frozen=True)
class Options:
    """Train one network on handwritten digits with each of SGD, Momentum, Adagrad, RMSprop and Adam.

    The learning rates were chosen on validation rows, by recipes/choose_lr.py.
    The accuracy is measured on test rows that played no part in it.
    """

    logdir: Path = Path("runs")
    """Folder for the five runs: runs/sgd, runs/momentum, ... Those that are there, finished or not, go on."""
    seed: int = 0
    """Fixes the initial weights and the order of the rows."""
    fresh: bool = False
    """Replace the five runs instead of going on with them."""


def train_all(options: Options) -> tuple[list[Result], int]:
    """The five runs, one after the other, under one progress bar; and how many epochs were new."""
    configs = [
        Config(optimizer=name, seed=options.seed, fresh=options.fresh, logdir=options.logdir / name)
        for name in FIVE
    ]
    results, new = [], 0
    with progress_bar(sum(config.epochs for config in configs), "epoch") as bar:
        for number, config in enumerate(configs):

            def advance(epoch: Epoch, before: int = number * configs[0].epochs) -> None:
                nonlocal new
                new += 1
                bar.set_postfix_str(f"accuracy {epoch.accuracy:.1%}", refresh=False)
                bar.update(before + epoch.epoch - bar.n)

            bar.set_description(f"{config.optimizer:8}")
            results.append(run(config, advance))
    return results, new


COLUMNS = {
    "optimizer": "{name}",
    "learning\nrate": "{lr:g}",
    "test\naccuracy": "{accuracy:.1%}",
    "final\ntraining loss": "{train_loss:.5f}",
    "seconds": "{seconds:.2f}",
    "microseconds\nper step()": "{step_microseconds:.0f}",
}


def outcomes(results: Sequence[Result]) -> str:
    """Side by side."""
    rows = [{**vars(r), "name": OPTIMIZERS[name].__name__} for name, r in zip(FIVE, results, strict=True)]
    compiling = sum(result.first_step_seconds for result in results)
    note = f"\n\n{compiling:.1f} of the seconds went into compiling; a new run finds that in the cache."
    return table_of(rows, COLUMNS) + (note if compiling > 1 else "")


def main() -> None:
    """Train all five and print the table."""
    options = parse(Options)
    with plain_endings():
        results, new = train_all(options)
        print(outcomes(results))
        if not new:
            print(f"\n{options.logdir} had these five already, finished; --fresh trains them anew.")
        print(f"\nTo see the runs side by side:\n\n    {tensorboard_command(options.logdir)}")


if __name__ == "__main__":
    main()
