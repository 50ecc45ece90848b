"""How few bits can a training do with? `python recipes/low_precision.py`.

bfloat16 has float32's range and 8 binary digits. A weight of 16 bits that takes a step of less than half of
its last place is rounded back to where it was, in each step anew: it has stopped learning, however long the
training goes on. Two cures, as options of every optimizer of torchopt_course: rounding up or down by chance,
so that the mean is right, and Kahan's compensation, which keeps what was rounded away in 16 bits more. A mean
of squares with β2 = 0.999 moves by a thousandth of itself in a step, and is stored in 16 or in 8 bits here.

Experiment: a convolutional network learns Fashion-MNIST with Adam, whose learning rate falls to zero in half
a cosine: small steps at the end are where it is won. Weights are float32 or bfloat16, and then forward and
backward pass are too; states are float32, bfloat16, or 8 bits in blocks of 256 with a scale each. Everybody
gets the same initial weights, rows in the same order, and the rate that suits float32.
`low_precision_text.py` is the same with a transformer.

The verdict, written before any run but pilots on validation rows. The claim is borne out if

1. bfloat16 weights rounded to the nearest end with a higher training loss than float32's by more than two
   standard errors of the difference, seed by seed, and
2. the same weights rounded by chance, and with Kahan's compensation, make up for at least half of that, and
3. float32 weights with states of 16 and of 8 bits, rounded by chance, end with a test accuracy that is not
   more than half a point below float32's.

gallery takes some ten minutes, full hours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.data import DataName, load_data
from recipes.common.model import ModelName, make_model
from recipes.common.report import Report, main
from recipes.parts import few_bits
from recipes.parts.few_bits import Outcome, compare, learn_in

CLAIM = (
    "Weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
LR = 1e-3


@dataclass(frozen=True)
class Size(few_bits.Size):
    data: DataName = "fashion-mnist"
    model: ModelName = "cnn"


SIZES = {
    "smoke": Size(rows=300, epochs=2, batch_size=32, seeds=2, data="digits", model="mlp"),
    "gallery": Size(rows=5_000, epochs=5, batch_size=64, seeds=5),
    "full": Size(rows=60_000, epochs=8, batch_size=128, seeds=5),
}


def learn(way: str, size: Size, seed: int) -> Outcome:
    """Train in one way from one seed."""
    data = load_data(size.data, "test").first(size.rows)
    return learn_in(way, make_model(size.model, data, seed), data, LR, size, seed)


def run(report: Report, size: Size, seed: int) -> None:
    """Train in all ways, draw, judge."""
    compare(report, CLAIM, learn, size, seed)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
