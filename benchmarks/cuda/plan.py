"""Which cases there are, what matters most first: a run that is cut off has that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..reductions import COMPARISONS
from ..storage_case import WAYS
from ..workloads import OPTIMIZERS
from . import others, steps
from .models import ALONE, LOOPED
from .record import Row

# For each case of a part, to measure; building, compiling and first steps come to that.
SECONDS = {
    steps.IN_THE_LOOP: 1.5,
    steps.ALONE: 0.4,
    steps.GRAPH: 0.3,
    others.WHOLE_TENSORS: 0.5,
    others.STORING: 0.4,
}


class Setting(NamedTuple):
    """What a case is given.

    Attributes:
        seconds: by the part of the run.
        bandwidth: bytes a second of a copy.
    """

    device: torch.device
    seconds: dict[str, float]
    bandwidth: float


Case = Callable[[Setting], Row]


def all_cases() -> dict[str, Case]:
    """By their labels, in the order in which they are measured."""
    cases: dict[str, Case] = {}
    for optimizer, model in [
        *(("Adam", model) for model in LOOPED),
        *((optimizer, "resnet18") for optimizer in OPTIMIZERS if optimizer != "Adam"),
    ]:
        cases[f"{steps.IN_THE_LOOP}: {optimizer}, {LOOPED[model].title}"] = partial(_loop, optimizer, model)
    for model, case in ALONE.items():
        cases[f"{steps.ALONE}: Adam, {case.title}"] = partial(_alone, "Adam", model)
    for model, case in ALONE.items():
        cases[f"{steps.GRAPH}: Adam, {case.title}"] = partial(_graph, model)
    for name in COMPARISONS:
        for model in ("resnet18", "gpt2"):
            label = f"{others.WHOLE_TENSORS}: {name}, {ALONE[model].title}"
            cases[label] = partial(_whole_tensors, name, model)
    for way in WAYS:
        cases[f"{others.STORING}: {way}"] = partial(_storing, way)
    cases[others.FIRST_STEP] = lambda setting: others.first_step(setting.device)
    for how in steps.MEMORY_HOW:
        cases[f"{steps.MEMORY}: {how}"] = partial(_memory, how)
    for optimizer in OPTIMIZERS:
        for model, case in ALONE.items():
            label = f"{steps.ALONE}: {optimizer}, {case.title}"
            cases.setdefault(label, partial(_alone, optimizer, model))
    return cases


def _loop(optimizer: str, model: str, setting: Setting) -> Row:
    return steps.in_the_loop(optimizer, model, setting.device, setting.seconds[steps.IN_THE_LOOP])


def _alone(optimizer: str, model: str, setting: Setting) -> Row:
    seconds = setting.seconds[steps.ALONE]
    return steps.step_alone(optimizer, model, setting.device, seconds, setting.bandwidth)


def _graph(model: str, setting: Setting) -> Row:
    seconds = setting.seconds[steps.GRAPH]
    return steps.in_a_graph(model, setting.device, seconds, setting.bandwidth)


def _whole_tensors(name: str, model: str, setting: Setting) -> Row:
    return others.whole_tensors(name, model, setting.device, setting.seconds[others.WHOLE_TENSORS])


def _storing(way: str, setting: Setting) -> Row:
    return others.storing(way, setting.device, setting.seconds[others.STORING])


def _memory(how: str, setting: Setting) -> Row:
    return steps.peak_memory(how, setting.device)
