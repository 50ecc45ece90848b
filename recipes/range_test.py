"""Find CyclicLR's bounds with an LR range test, then train with them: `python recipes/range_test.py`."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import torchopt_course as optim
from recipes.common.command_line import check_seed, need, parse, plain_endings, progress_bar
from recipes.common.data import load_data
from recipes.common.folder import told_where
from recipes.common.loop import one_thread, train
from recipes.common.model import mlp
from recipes.common.optimizers import LEARNING_RATES, OptimizerName, make_optimizer
from recipes.common.schedulers import uses_momentum

# The training: three cycles of eight epochs, each half as high as the last.
EPOCHS, BATCH_SIZE = 24, 32


@dataclass(frozen=True)
class Options:
    """Raise the learning rate on handwritten digits until the loss explodes, and train between the bounds.

    The range test sees training rows only. It leaves model and optimizer as they were, so that the training
    that follows is the same as with bounds from the command line.

    Draws two pictures (that takes matplotlib): the curve of the test and the schedule of the training.
    """

    optimizer: OptimizerName = "momentum"
    """Which optimizer of torchopt_course updates the weights."""
    seed: int = 0
    """Fixes the initial weights and the order of the rows."""
    out: Path = Path("runs/range_test")
    """Folder for the pictures, lr_range_test.png and cyclic_lr.png."""


def main() -> None:
    """Test, train, draw."""
    options = parse(Options)
    with plain_endings(), one_thread():
        check_seed(options.seed)
        need("matplotlib")
        with told_where(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
        data = load_data("digits", "test", torch.device("cpu"))
        torch.manual_seed(options.seed)
        model = mlp(8, 10)
        optimizer = make_optimizer(options.optimizer, model.parameters(), LEARNING_RATES[options.optimizer])

        def step(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            inputs, targets = batch
            optimizer.zero_grad()
            scores = model(inputs)
            loss = F.cross_entropy(scores, targets)
            loss.backward()
            optimizer.step()
            return loss, (scores.argmax(dim=1) == targets).float().mean()

        rows = TensorDataset(data.train_inputs, data.train_targets)
        loader = DataLoader(rows, batch_size=BATCH_SIZE, shuffle=True)
        found = optim.lr_range_test(step, loader, model, optimizer, iterations=300)
        print(found)
        save(found.figure(), options.out / "lr_range_test.png")
        if found.base_lr is None or found.max_lr is None:
            return

        cyclic = partial(
            optim.CyclicLR,
            base_lr=found.base_lr,
            max_lr=found.max_lr,
            step_size_up=4 * len(loader),
            mode="triangular2",
            cycle_momentum=uses_momentum(optimizer),
        )
        schedule = optim.preview_schedule(cyclic, EPOCHS * len(loader), like=optimizer)
        save(schedule.figure(), options.out / "cyclic_lr.png")
        how: Any = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "seed": options.seed}
        with progress_bar(EPOCHS, "epoch", options.optimizer) as bar:
            for last in train(model, optimizer, data, scheduler=cyclic(optimizer), **how):  # noqa: B007
                bar.update()
        print(
            f"{options.optimizer} between these bounds: test accuracy {last.accuracy:.1%}, training loss "
            f"{last.train_loss:.5f} after {EPOCHS} epochs"
        )


def save(figure: Any, path: Path) -> None:
    """Write a picture and say where."""
    with told_where(path.parent):
        figure.savefig(path, dpi=100)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
