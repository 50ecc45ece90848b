"""The name that :mod:`torchopt_course.validation` had before; deprecated, gone in 0.2."""

from __future__ import annotations

import warnings

from .validation import at_least_zero, decay_rates, fraction, not_nan, pair, plain

__all__ = ["at_least_zero", "decay_rates", "fraction", "not_nan", "pair", "plain"]

warnings.warn(
    "torchopt_course.hyperparameters has become torchopt_course.validation: import from there",
    DeprecationWarning,
    stacklevel=2,
)
