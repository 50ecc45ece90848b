"""Train a small network with one optimizer: `python recipes/train.py --optimizer adam --logdir runs/adam`."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Annotated

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from recipes.common.command_line import is_first_process, option, parse, plain_endings, progress_bar
from recipes.common.data import DataName, Split
from recipes.common.folder import METRICS_FILE, read_json
from recipes.common.model import ModelName
from recipes.common.optimizers import OptimizerName
from recipes.common.schedulers import SchedulerName
from recipes.common.table import table_of
from recipes.common.tensorboard import tensorboard_command
from recipes.trainer.board import pictures_are_due
from recipes.trainer.measure import Epoch
from recipes.trainer.run import run
from recipes.trainer.training import AutogradName

ITS_OWN = "the optimizer's own"


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a small network on handwritten digits or Fashion-MNIST.

    Everything of the run lies in --logdir:
    - config.json: the settings
    - step-N.torchopt_course.pt: the two newest checkpoints
    - metrics.jsonl: a line for every epoch
    - events.out...: the files that TensorBoard reads
    - predictions.png, confusion.png: what the model sees
    - result.json: the outcome

    Stopped in whatever way, even by kill -9, the same command goes on where the run was. The same command
    gives the same weights, bit for bit, on the same kind of machine with the same torch and as many threads
    (OMP_NUM_THREADS; the digits always take one). On several processes:
    torchrun --nproc-per-node 2 recipes/train.py
    """

    data: DataName = "digits"
    """1,797 scans of handwritten digits that come with scikit-learn, or 70,000 pictures of clothes."""
    data_dir: Annotated[Path | None, option("FOLDER", "Debian's package, or a cache")] = None
    """Where Fashion-MNIST lies, or is to be downloaded to."""
    split: Split = "test"
    """Rows to measure on: those kept for the test, or a part of the others, to choose settings with."""
    model: ModelName = "mlp"
    """One hidden layer; a LeNet with batch norm and dropout; or two plain 5 x 5 convolutions."""
    autograd: AutogradName = "torch"
    """Who differentiates: torch, or torchopt_course.autograd, written to be read."""
    optimizer: OptimizerName = "adam"
    """Which optimizer of torchopt_course updates the weights."""
    lr: Annotated[float | None, option("FLOAT", "the rate chosen for the optimizer")] = None
    """Learning rate."""
    momentum: Annotated[float | None, option("FLOAT", ITS_OWN)] = None
    """Share of the velocity that is kept; of sgd, momentum and rmsprop."""
    nesterov: bool = False
    """Look at the slope where the velocity leads to; of momentum, and of sgd with --momentum."""
    betas: Annotated[tuple[float, float] | None, option("FLOAT FLOAT", ITS_OWN)] = None
    """Memory of the gradient and of its square; of adam and adamw."""
    weight_decay: Annotated[float | None, option("FLOAT", ITS_OWN)] = None
    """Pull towards zero: part of the gradient, or with adamw apart from it."""
    scheduler: SchedulerName = "none"
    """How the rate changes: to a tenth on a plateau of the training loss, or up and down in cycles."""
    max_lr: Annotated[float | None, option("FLOAT", "ten times --lr")] = None
    """The rate at the top of a cycle."""
    cycle_epochs: Annotated[int | None, option("INT", "8")] = None
    """Epochs from one bottom of the rate to the next; every cycle is half as high as the one before."""
    epochs: int = 60
    """Passes over the training rows. A finished run can be given more."""
    batch_size: int = 32
    """Rows in one step, of all processes together."""
    seed: int = 0
    """Fixes the initial weights, the order of the rows and dropout, but not the split."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:N."""
    amp: bool = False
    """Mixed precision: bfloat16 where torch thinks it safe."""
    compile: bool = False
    """Let torch.compile speed up the forward and backward pass; needs a C++ compiler on the CPU."""
    shard: bool = False
    """On several processes, each keeps a part of the weights (FSDP2) instead of a copy (DDP)."""
    offload: bool = False
    """With --shard on GPUs: weights and states stay in the host's memory, whose processor takes the steps."""
    save_every: float = 30.0
    """Seconds from one checkpoint to the next."""
    fresh: bool = False
    """Replace what lies in --logdir, finished or not, instead of going on with it."""
    logdir: Path = Path("runs/train")
    """Folder of the run. Files that are not the recipe's own are left alone."""


def epoch_table(config: Config) -> str:
    """The epochs after which pictures were drawn."""
    lines = (config.logdir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    epochs = [epoch for epoch in map(json.loads, lines) if pictures_are_due(epoch["epoch"], len(lines))]
    columns = {
        "epoch": "{epoch}",
        "training\nloss": "{train_loss:.5f}",
        f"{config.split}\nloss": "{loss:.4f}",
        f"{config.split}\naccuracy": "{accuracy:.1%}",
        "last\nrate": "{lr:.4g}",
    }
    return table_of(epochs, columns)


def main() -> None:
    """Parse, train under a progress bar, and print the outcome; the last line is for programs."""
    config = parse(Config)
    with plain_endings():
        finished_before = not config.fresh and (read_json(config.logdir / "result.json") or {}).get("epochs")
        with progress_bar(config.epochs, "epoch", config.optimizer) as bar:

            def advance(epoch: Epoch) -> None:
                bar.set_postfix_str(f"accuracy {epoch.accuracy:.1%}", refresh=False)
                bar.update(epoch.epoch - bar.n)

            result = run(config, advance)
        if not is_first_process():
            return
        if finished_before == config.epochs:
            print(f"{config.logdir} had this run already, finished; --fresh replaces it.")
        print(f"{epoch_table(config)}\n")
        print(
            f"{result.optimizer}, learning rate {result.lr:g}: {config.split} accuracy {result.accuracy:.1%} "
            f"after {result.epochs} epochs (the last, not the best), "
            f"{result.seconds:.1f} s, {result.step_microseconds:.0f} microseconds per step()"
        )
        print(f"To look at the run: {tensorboard_command(config.logdir)}")
        print(json.dumps(result.summary()))


if __name__ == "__main__":
    main()
