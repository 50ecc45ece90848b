"""Thousands of steps beside ``torch.optim`` while everything changes that may change in a long training.

``make soak`` runs 10,000 steps of each optimizer and prints a report; the test suite runs fewer.
"""

from __future__ import annotations

import argparse
import copy
import gc
import io
import os
import random
import sys
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..helpers import NAMES, ours, tensor, theirs

OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"weight_decay": 0.01},
    "Momentum": {"weight_decay": 0.01, "nesterov": True},
    "Adagrad": {"lr_decay": 1e-4, "weight_decay": 0.01},
    "RMSprop": {"momentum": 0.5, "centered": True, "weight_decay": 0.01},
    "Adam": {"amsgrad": True, "weight_decay": 0.01},
    "AdamW": {},
}
GROUPS = [["vector", "matrix"], ["channels_last"], ["scalar", "transposed", "empty"], ["sliced", "one"]]
TOLERANCE = 1e-9
# Bytes by which memory may grow while nothing that is kept grows. 12 bytes a step of 10,000 would show.
MOST_TRACED, MOST_RESIDENT = 60_000, 16 * 2**20


@dataclass(frozen=True)
class Report:
    """What happened, and what came of it.

    Attributes:
        difference: the largest between a parameter or state and torch's, relative to the larger of it and 1.
        traced: bytes by which Python's memory grew in the second half (tracemalloc).
        resident: bytes by which the process grew in the second half (RSS).
        events: how often each of them happened.
    """

    name: str
    steps: int
    difference: float
    traced: int
    resident: int
    events: dict[str, int]

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE and self.traced <= MOST_TRACED and self.resident <= MOST_RESIDENT

    def __str__(self) -> str:
        events = ", ".join(f"{count:,} x {event}" for event, count in self.events.items())
        return (
            f"{self.name}: {'passed' if self.passed else 'FAILED'}, {self.steps:,} steps\n"
            f"    largest difference to torch {self.difference:.1e} (at most {TOLERANCE:.0e})\n"
            f"    second half: Python's memory {self.traced:+,} bytes, the process {self.resident:+,} bytes\n"
            f"    {events}"
        )


class Side:
    """One of the two optimizers with its parameters; whatever happens, happens to both."""

    def __init__(self, make: Any, options: dict[str, Any]) -> None:
        self.make, self.options = make, options
        self.params = new_parameters(GROUPS[0])
        self.optimizer: torch.optim.Optimizer = make(self.params, lr=0.01, **options)

    def add_group(self, kinds: list[str], lr: float) -> None:
        params = new_parameters(kinds)
        self.params += params
        self.optimizer.add_param_group({"params": params, "lr": lr})

    def set_option(self, group: int, **options: float) -> None:
        self.optimizer.param_groups[group].update(options)

    def save_and_load(self, anew: bool) -> None:
        """Through a file, as after an interruption: into a new optimizer, or back into this one."""
        file = io.BytesIO()
        torch.save(self.optimizer.state_dict(), file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        if anew:
            groups = [{"params": group["params"]} for group in self.optimizer.param_groups]
            self.optimizer = self.make(groups, lr=1.0, **self.options)
        self.optimizer.load_state_dict(saved)

    def copy(self) -> None:
        self.params, self.optimizer = copy.deepcopy((self.params, self.optimizer))

    def replace_data(self, i: int) -> None:
        self.params[i].data = self.params[i].detach().clone(memory_format=torch.preserve_format)


def new_parameters(kinds: list[str]) -> list[nn.Parameter]:
    return [nn.Parameter(tensor(kind, torch.float64, seed)) for seed, kind in enumerate(kinds)]


def soak(name: str, steps: int, seed: int = 0) -> Report:
    """Train ours and torch's for ``steps`` steps with the same gradients and the same events."""
    choose = random.Random(seed)
    sides = Side(ours(name), OPTIONS[name]), Side(theirs(name), {**OPTIONS[name], "foreach": False})
    generator = torch.Generator().manual_seed(seed)
    events: dict[str, int] = {}
    middle = (0, 0)
    gc.collect()
    gc.freeze()  # what was there before is not looked through each time that memory is counted
    tracemalloc.start()
    for step in range(steps):
        if step == steps // 2:
            middle = memory_of(sides)
        event = choose_event(choose, len(sides[0].optimizer.param_groups), step, steps)
        if event:
            events[event] = events.get(event, 0) + 1
            group, number = choose.randrange(len(sides[0].optimizer.param_groups)), choose.random()
            for side in sides:
                happen(event, side, group, number)
        for i, twins in enumerate(zip(*(side.params for side in sides), strict=True)):
            kept = choose.random()
            if kept < 0.1:
                events["gradient vanishes"] = events.get("gradient vanishes", 0) + 1
            grad = torch.randn(twins[0].shape, generator=generator, dtype=torch.float64)
            for param in twins:
                # Often in the memory of the last one, as with zero_grad(set_to_none=False).
                if kept < 0.1 or (i == 1 and step < steps // 10):
                    param.grad = None
                elif kept < 0.5 and param.grad is not None:
                    param.grad.copy_(grad)
                else:
                    param.grad = grad.clone()
        for side in sides:
            side.optimizer.step()
    end = memory_of(sides)
    tracemalloc.stop()
    return Report(name, steps, difference(*sides), end[0] - middle[0], end[1] - middle[1], events)


def choose_event(choose: random.Random, groups: int, step: int, steps: int) -> str | None:
    if groups < len(GROUPS) and step >= groups * steps // 10:
        return "group added"
    rates = {
        "lr changed": 0.05,
        "weight_decay changed": 0.02,
        "p.data replaced": 0.02,
        "saved, loaded": 0.01,
        "saved, loaded anew": 0.01,
        "deep copy": 0.01,
    }
    draw = choose.random()
    for event, rate in rates.items():
        draw -= rate
        if draw < 0:
            return event
    return None


def happen(event: str, side: Side, group: int, number: float) -> None:
    if event == "group added":
        side.add_group(GROUPS[len(side.optimizer.param_groups)], 0.02 * number)
    elif event == "lr changed":
        side.set_option(group, lr=10 ** (-4 + 3 * number))
    elif event == "weight_decay changed":
        side.set_option(group, weight_decay=0.05 * number if number > 0.3 else 0)
    elif event == "deep copy":
        side.copy()
    elif event == "p.data replaced":
        side.replace_data(int(number * len(side.params)))
    else:
        side.save_and_load(anew=event.endswith("anew"))


def difference(mine: Side, reference: Side) -> float:
    largest = 0.0
    for param, twin in zip(mine.params, reference.params, strict=True):
        got, expected = mine.optimizer.state.get(param, {}), reference.optimizer.state.get(twin, {})
        assert set(got) == set(expected), "states have other names"
        for value, truth in [(param.detach(), twin.detach()), *((got[name], expected[name]) for name in got)]:
            error = (value - truth).abs() / truth.abs().clamp(min=1)
            assert not error.isnan().any()
            largest = max(largest, error.max().item() if error.numel() else 0.0)
    return largest


def memory_of(sides: Iterable[Side]) -> tuple[int, int]:
    """Bytes in use by Python, and by the process, while no step is planned: plans do not outlive a load."""
    for side in sides:
        side.save_and_load(anew=False)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return traced, 0
    return traced, int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.optimizers.soak")
    parser.add_argument("--steps", type=int, default=10_000, help="for each optimizer (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("optimizers", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)} (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    for name in arguments.optimizers:
        report = soak(name, arguments.steps, arguments.seed)
        print(report, flush=True)
        failed |= not report.passed
    sys.exit(failed)


if __name__ == "__main__":
    main()
