"""Refuse what cannot be right, before anything is changed: options, tensors, checkpoints, declarations.

For an optimizer of your own: :func:`options_of` for its constructor; :func:`at_least_zero`,
:func:`fraction`, :func:`decay_rates` and :func:`not_nan` for its ``check_options``; :func:`pair` and
:func:`plain` bring options into the form in which groups and checkpoints hold them. The modules
themselves are for the package's own use.
"""

from __future__ import annotations

from .options import at_least_zero, decay_rates, fraction, not_nan, options_of, pair, plain

__all__ = ["at_least_zero", "decay_rates", "fraction", "not_nan", "options_of", "pair", "plain"]
