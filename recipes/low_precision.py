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

The verdict, written before any run but pilots on validation rows. The claim is borne out if

1. bfloat16 weights rounded to the nearest end with a higher training loss than float32's by more than two
   standard errors of the difference, seed by seed, and
2. the same weights rounded by chance, and with Kahan's compensation, make up for at least half of that, and
3. float32 weights with states of 16 and of 8 bits, rounded by chance, end with a test accuracy that is not
   more than half a point below float32's.

gallery takes some ten minutes, full hours.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.few_bits import WAYS, Job, Outcome, Size, learn, rows_of
from recipes.parts.low_precision_picture import draw

CLAIM = (
    "Weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
SIZES = {
    "smoke": Size("digits", "mlp", rows=300, epochs=2, batch_size=32, seeds=2),
    "gallery": Size("fashion-mnist", "cnn", rows=5_000, epochs=5, batch_size=64, seeds=5),
    "full": Size("fashion-mnist", "cnn", rows=60_000, epochs=8, batch_size=128, seeds=5),
}


def difference(of: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Seed by seed: the mean, and its standard error."""
    each = [one - other for one, other in zip(of, reference, strict=True)]
    return fmean(each), stdev(each) / math.sqrt(len(each))


def judge(outcomes: Mapping[str, Sequence[Outcome]]) -> Verdict:
    """The criterion of the docstring on top, point by point."""
    losses = {way: [one.losses[-1] for one in runs] for way, runs in outcomes.items()}
    accuracies = {way: [one.accuracy for one in runs] for way, runs in outcomes.items()}
    behind = {way: difference(losses[way], losses["float32"]) for way in WAYS}
    points = {way: 100 * difference(accuracies[way], accuracies["float32"])[0] for way in WAYS}
    lost, error = behind["bfloat16, nearest"]
    cured = all(behind[f"bfloat16, {how}"][0] <= lost / 2 for how in ("stochastic", "Kahan"))
    frugal = all(points[f"states {what}, stochastic"] >= -0.5 for what in ("bfloat16", "8 bits"))
    still = fmean(run.moved[-3] for run in outcomes["bfloat16, nearest"])
    said = ", ".join(f"{way} {points[way]:+.2f}" for way in WAYS if way != "float32")
    return Verdict(
        CLAIM,
        lost > 2 * error and cured and frugal,
        f"rounded to the nearest, bfloat16 weights ended with a training loss {lost:+.4f} ± {error:.4f} (one "
        f"standard error) from float32's, by chance {behind['bfloat16, stochastic'][0]:+.4f}, with Kahan's "
        f"compensation {behind['bfloat16, Kahan'][0]:+.4f}; shortly before the end {still:.0%} of the "
        f"weights rounded to the nearest still moved; test accuracy against float32's, in points: {said}",
    )


def run(report: Report, size: Size, seed: int) -> None:
    """Train in all ways, draw, judge."""
    seeds = range(seed, seed + size.seeds)
    learnt = iter(report.train_all(learn, [Job(size, way, one) for way in WAYS for one in seeds], "ways"))
    outcomes = {way: [next(learnt) for _ in seeds] for way in WAYS}
    for way, runs in outcomes.items():
        mean = [fmean(values) for values in zip(*(one.losses for one in runs), strict=True)]
        tag = f"training_loss/{way.replace(', ', '_').replace(' ', '_')}"
        report.curve(tag, "Of each epoch; mean over the seeds.", mean)
    report.picture("who_still_moves", draw(outcomes))
    rows = [
        {
            "way": way,
            "bytes": runs[0].bytes_kept,
            "moved_at_the_end": fmean(one.moved[-3] for one in runs),
            "loss": fmean(one.losses[-1] for one in runs),
            "losses": [one.losses[-1] for one in runs],
            "accuracy": fmean(one.accuracy for one in runs),
            "spread": stdev(one.accuracy for one in runs),
            "accuracies": [one.accuracy for one in runs],
        }
        for way, runs in outcomes.items()
    ]
    columns = {
        "weights, states": "{way}",
        "bytes of\na weight": "{bytes:.1f}",
        "moved shortly\nbefore the end": "{moved_at_the_end:.0%}",
        "training\nloss": "{loss:.4f}",
        f"test accuracy\n({size.seeds} seeds)": "{accuracy:.2%} ± {spread:.2%}",
    }
    digest = rows_of(size, "test").sha256()
    report.finish(table_of(rows, columns), rows, judge(outcomes), data_sha256=digest)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
