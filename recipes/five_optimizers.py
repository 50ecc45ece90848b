"""Train one network with each of five optimizers: `python recipes/five_optimizers.py --logdir runs`."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from recipes.common.command_line import parse, plain_endings, progress_bar
from recipes.common.optimizers import OPTIMIZERS, OptimizerName
from recipes.common.table import table_of
from recipes.common.tensorboard import tensorboard_command
from recipes.train import Config
from recipes.trainer.measure import Epoch, Result
from recipes.trainer.run import run

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


COLUMNS = {
    "optimizer": "{name}",
    "learning\nrate": "{lr:g}",
    "test\naccuracy": "{accuracy:.1%}",
    "final\ntraining loss": "{train_loss:.5f}",
    "seconds": "{seconds:.2f}",
    "microseconds\nper step()": "{step_microseconds:.0f}",
}


def main() -> None:
    """Train one after the other, or find them finished, and print them side by side."""
    options = parse(Options)
    results: dict[str, Result] = {}
    new: list[Epoch] = []
    with plain_endings():
        with progress_bar(len(FIVE) * Config.epochs, "epoch") as bar:

            def advance(epoch: Epoch) -> None:
                new.append(epoch)
                bar.set_postfix_str(f"accuracy {epoch.accuracy:.1%}", refresh=False)
                bar.update(len(results) * Config.epochs + epoch.epoch - bar.n)

            for name in FIVE:
                bar.set_description(f"{name:8}")
                logdir = options.logdir / name
                config = Config(optimizer=name, seed=options.seed, fresh=options.fresh, logdir=logdir)
                results[OPTIMIZERS[name].__name__] = run(config, advance)
        rows = [{**vars(result), "name": name} for name, result in results.items()]
        print(table_of(rows, COLUMNS))
        compiling = sum(result.first_step_seconds for result in results.values())
        if compiling > 1:
            print(f"\n{compiling:.1f} of the seconds went into compiling; a new run finds that in the cache.")
        if not new:
            print(f"\n{options.logdir} had these five already, finished; --fresh trains them anew.")
        print(f"\nTo see the runs side by side:\n\n    {tensorboard_command(options.logdir)}")


if __name__ == "__main__":
    main()
