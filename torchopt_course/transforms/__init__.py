"""What is done to gradients before a rule and to weights after it, in the same kernel.

``Adam(params, transforms=[clip_norm(1.0), cautious()])``: the rule is composed with the transforms
(:mod:`.composition`), and engines read what comes of it like any other rule.
"""

from __future__ import annotations

from .average import ema
from .cautious import cautious
from .centralize import centralize
from .clip import clip_global_norm, clip_norm, clip_value
from .decay import decay_groups, decoupled_decay
from .lookahead import lookahead
from .skip import skip_nonfinite
from .transform import Transform

__all__ = [
    "Transform",
    "cautious",
    "centralize",
    "clip_global_norm",
    "clip_norm",
    "clip_value",
    "decay_groups",
    "decoupled_decay",
    "ema",
    "lookahead",
    "skip_nonfinite",
]
