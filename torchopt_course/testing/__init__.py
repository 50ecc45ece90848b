"""Checks for your own tests."""

from .gradients import GradientError, NotDifferentiable, assert_gradients_agree
from .optimizers import OptimizerError, assert_optimizer_agrees, optimizer_checks, parametrize_with_checks

__all__ = [
    "GradientError",
    "NotDifferentiable",
    "OptimizerError",
    "assert_gradients_agree",
    "assert_optimizer_agrees",
    "optimizer_checks",
    "parametrize_with_checks",
]
