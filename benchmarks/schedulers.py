"""``python -m benchmarks.schedulers``: the cost of one ``scheduler.step()``, ours to torch's.

Both are called in short turns, one after the other, so that whatever slows the machine down hits both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

import torchopt_course as optim

from .timing import Pace, interleave, microseconds, ratio

SCHEDULERS: dict[str, Callable[[Any, torch.optim.Optimizer], Any]] = {
    "CyclicLR, triangular": lambda module, opt: module.CyclicLR(opt, 0.01, 0.1, 50),
    "CyclicLR, triangular2": lambda module, opt: module.CyclicLR(opt, 0.01, 0.1, 50, mode="triangular2"),
    "CyclicLR, exp_range": lambda module, opt: module.CyclicLR(
        opt, 0.01, 0.1, 50, mode="exp_range", gamma=0.999
    ),
    "ReduceLROnPlateau, waiting": lambda module, opt: module.ReduceLROnPlateau(opt, patience=10**9),
    "ReduceLROnPlateau, reducing": lambda module, opt: module.ReduceLROnPlateau(
        opt, patience=0, factor=0.999999, eps=0
    ),
}
GROUPS = (1, 2, 10)


def make_optimizer(kind: Any, groups: int) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = kind(
        [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)]
    )
    return made


def stepper(scheduler: Any) -> Callable[[], object]:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return lambda: scheduler.step(1.0)
    return lambda: scheduler.step()


def main() -> None:
    warnings.simplefilter("ignore")  # of schedulers that are stepped before their optimizers
    pace = Pace(seconds=1.5, least_rounds=50, turn_seconds=0.0005)
    print(f"{'scheduler':28} {'optimizer':9} {'groups':>6} {'torch µs':>9} {'ours µs':>8} {'ours/torch':>11}")
    for name, make in SCHEDULERS.items():
        for kind in (torch.optim.SGD, torch.optim.Adam):
            for groups in GROUPS:
                samples = interleave(
                    {
                        "torch": stepper(make(torch.optim.lr_scheduler, make_optimizer(kind, groups))),
                        "ours": stepper(make(optim.lr_scheduler, make_optimizer(kind, groups))),
                    },
                    pace,
                )
                theirs, mine = microseconds(samples["torch"]), microseconds(samples["ours"])
                relative = ratio(samples["ours"], samples["torch"])
                print(
                    f"{name:28} {kind.__name__:9} {groups:6} {theirs.median:9.2f} {mine.median:8.2f} "
                    f"{relative.median:11.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
