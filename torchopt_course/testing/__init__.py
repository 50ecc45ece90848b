"""Checks for your own tests."""

from .gradients import GradientError, assert_gradients_agree

__all__ = ["GradientError", "assert_gradients_agree"]
