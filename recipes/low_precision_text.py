"""How few bits can a transformer do with? `python recipes/low_precision_text.py`.

The experiment of `low_precision.py`, where a convolutional network looks at pictures, with a small
transformer that reads Python's language reference, character by character, and says at each which one comes
next. Adam's learning rate falls to zero in half a cosine. Weights are float32 or bfloat16, and then forward
and backward pass are too; states are float32, bfloat16, or 8 bits in blocks of 256 with a scale each.
Everybody gets the same initial weights, rows in the same order, and the rate that suits float32.

The verdict is that of `low_precision.py`, and was written before any run but pilots on validation rows. The
claim is borne out if

1. bfloat16 weights rounded to the nearest end with a higher training loss than float32's by more than two
   standard errors of the difference, seed by seed, and
2. the same weights rounded by chance, and with Kahan's compensation, make up for at least half of that, and
3. float32 weights with states of 16 and of 8 bits, rounded by chance, end with a test accuracy (the share of
   next characters that are guessed rightly) that is not more than half a point below float32's.

gallery takes ten minutes of one core, full some two hours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from recipes.common.report import Report, main
from recipes.parts.few_bits import WAYS, Outcome, learn_in, tell
from recipes.parts.language_reference import load_text
from recipes.parts.transformer import make_transformer

CLAIM = (
    "A transformer's weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
LR = 3e-3
WINDOW = 64


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    rows: int
    """Windows of 64 characters."""
    epochs: int
    batch_size: int
    seeds: int


SIZES = {
    "smoke": Size(rows=60, epochs=2, batch_size=20, seeds=2),
    "gallery": Size(rows=2_500, epochs=3, batch_size=16, seeds=5),
    "full": Size(rows=5_000, epochs=20, batch_size=16, seeds=5),
}


@dataclass(frozen=True)
class Job:
    """One training."""

    size: Size
    way: str
    seed: int


def learn(job: Job) -> Outcome:
    """Train in one way from one seed."""
    size, data = job.size, load_text(WINDOW, "test").first(job.size.rows)
    torch.manual_seed(job.seed)
    return learn_in(job.way, make_transformer(data), data, LR, size.epochs, size.batch_size, job.seed)


def run(report: Report, size: Size, seed: int) -> None:
    """Train in all ways, draw, judge."""
    jobs = {way: [Job(size, way, seed + n) for n in range(size.seeds)] for way in WAYS}
    tell(report, CLAIM, report.train_all(learn, jobs, "ways"), text_sha256=load_text(WINDOW, "test").sha256())


if __name__ == "__main__":
    main(__doc__, SIZES, run)
