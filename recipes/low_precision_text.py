"""How few bits can a transformer do with? `python recipes/low_precision_text.py`.

The experiment of `low_precision.py`, where a convolutional network looks at pictures, with a small
transformer that reads Python's language reference, character by character, and says at each which one comes
next. The verdict is that of `low_precision.py` too, and was written before any run but pilots on validation
rows; the test accuracy is the share of next characters that are guessed rightly.

gallery takes ten minutes of one core, full some two hours.
"""

from __future__ import annotations

import runpy
from pathlib import Path

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

from recipes.common.report import Report, main
from recipes.low_precision import Outcome, Size, compare, learn_in
from recipes.parts.language_reference import load_text
from recipes.parts.transformer import make_transformer

CLAIM = (
    "A transformer's weights of 16 bits that are rounded to the nearest stop learning when steps are small, "
    "rounding by chance or Kahan's compensation lets them go on, and states do with 16 or 8 bits"
)
WINDOW = 64


# Rows are windows of the text.
SIZES = {
    "smoke": Size(rows=40, epochs=1, batch_size=10, seeds=2),
    "gallery": Size(rows=2_500, epochs=3, batch_size=16, seeds=5),
    "full": Size(rows=5_000, epochs=20, batch_size=16, seeds=5),
}


def learn(way: str, size: Size, seed: int) -> Outcome:
    """Train in one way from one seed."""
    data = load_text(WINDOW, "test").first(size.rows)
    return learn_in(way, make_transformer(data, seed), data, 3e-3, size, seed)


def run(report: Report, size: Size, seed: int) -> None:
    """Train in all ways, draw, judge."""
    compare(report, CLAIM, learn, size, seed, text_sha256=load_text(WINDOW, "test").sha256())


if __name__ == "__main__":
    main(__doc__, SIZES, run)
