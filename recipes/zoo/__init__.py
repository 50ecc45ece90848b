"""Optimizers from their papers: the formula, the class, the source. `python -m recipes.zoo` tables them."""

from __future__ import annotations

from torchopt_course import ElementwiseOptimizer, TensorOptimizer

from ..write_your_own import Adadelta, Adamax, RAdam, Rprop
from .adabelief import AdaBelief
from .adafactor import Adafactor
from .adan import Adan
from .ademamix import AdEMAMix
from .adopt import ADOPT
from .lamb import LAMB
from .lars import LARS
from .lion import Lion
from .madgrad import MADGRAD
from .muon import Muon
from .nadam import NAdam
from .prodigy import Prodigy
from .sam import SAM
from .schedule_free import ScheduleFreeAdamW
from .soap import SOAP
from .stable_adamw import StableAdamW
from .yogi import Yogi

# In the order of their years.
ZOO: tuple[type[ElementwiseOptimizer | TensorOptimizer], ...] = (
    *(Rprop, Adadelta, Adamax, NAdam, LARS, Adafactor, Yogi, RAdam, LAMB, AdaBelief, SAM, MADGRAD),
    *(Adan, Lion, StableAdamW, Prodigy, ScheduleFreeAdamW, AdEMAMix, SOAP, ADOPT, Muon),
)

__all__ = ["ZOO", *(cls.__name__ for cls in ZOO)]
