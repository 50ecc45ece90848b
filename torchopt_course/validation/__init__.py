"""Refuse what cannot be right, before anything is changed: options, tensors, checkpoints, declarations.

For the ``check_options`` of an optimizer of your own: :func:`at_least_zero`, :func:`fraction`,
:func:`decay_rates`, :func:`not_nan`; :func:`pair` and :func:`plain` bring options into the form in which
groups and checkpoints hold them. The modules beside them are for the package's own use.
"""

from __future__ import annotations

from .options import at_least_zero, decay_rates, fraction, not_nan, pair, plain

__all__ = ["at_least_zero", "decay_rates", "fraction", "not_nan", "pair", "plain"]
