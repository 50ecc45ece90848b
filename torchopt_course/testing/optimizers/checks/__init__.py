"""The checks by theme; the order of the imports is the order in which they run and are reported."""

from . import formula, steps, parameters, checkpoints, options, surroundings, engines  # noqa: I001

__all__ = ["checkpoints", "engines", "formula", "options", "parameters", "steps", "surroundings"]
