"""The usual checks of an optimizer's options, with torch's error types and wording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def at_least_zero(label: str, value: Any) -> None:
    """Refuse negative numbers, NaN, and what is no number.

    Raises:
        ValueError: ``value`` is negative or NaN.
        TypeError: ``value`` cannot be compared with a number.
    """
    _require(label, value, "a number >= 0", lambda number: number >= 0.0)


def fraction(label: str, value: Any) -> None:
    """Refuse what is not in [0, 1).

    Raises:
        ValueError: ``value`` is outside of [0, 1), or NaN.
        TypeError: ``value`` cannot be compared with a number.
    """
    _require(label, value, "a number in [0, 1)", lambda number: 0.0 <= number < 1.0)


def decay_rates(betas: Any) -> None:
    """Refuse what is not a pair of decay rates in [0, 1), both floats or both 1-element tensors.

    Raises:
        ValueError: a rate out of range, one tensor and one number, or a tensor of several elements.
        TypeError: not a pair of numbers.
    """
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element, got shape {tuple(beta.shape)}")
        fraction(f"beta parameter at index {i}", beta)
    if not (all(isinstance(b, float) for b in betas) or all(isinstance(b, Tensor) for b in betas)):
        kinds = ", ".join(type(beta).__name__ for beta in betas)
        raise ValueError(f"betas must be either both floats or both Tensors, got {betas!r} ({kinds})")


def not_nan(label: str, value: Any) -> None:
    """Refuse NaN, the number that passes every ``value < 0``.

    Raises:
        ValueError: ``value`` is NaN.
    """
    if isinstance(value, float) and value != value:
        raise ValueError(f"Invalid {label}: {value} (expected a number)")


def _require(label: str, value: Any, expected: str, holds: Callable[[Any], Any]) -> None:
    try:
        fine = bool(holds(value))
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"Invalid {label}: {value!r} (expected {expected})") from error
    if not fine:
        raise ValueError(f"Invalid {label}: {value} (expected {expected})")
