"""The speed that is aimed at: how many times longer torch should take, at the least, in each case."""

from __future__ import annotations

from .cases import Case, Result
from .workloads import OPTIMIZERS

AGAINST_DEFAULT, AGAINST_FOREACH, AGAINST_FUSED = "default / ours", "foreach / ours", "fused / ours"

# In a training loop: model and optimizer, then the ratio and what it should be on one thread and on more.
IN_THE_LOOP: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("lenet", "Adam"): {AGAINST_FUSED: (1.3, 1.1), AGAINST_DEFAULT: (2.5, 1.7)},
    ("mlp", "Adam"): {AGAINST_FUSED: (1.3, 1.1), AGAINST_DEFAULT: (2.5, 1.6)},
    ("wide", "Adam"): {AGAINST_FUSED: (1.05, 1.05), AGAINST_DEFAULT: (1.8, 1.8)},
    **{
        ("resnet18", name): {AGAINST_FUSED: (1.0, 1.0), AGAINST_DEFAULT: (1.2, 1.2)}
        for name in ("Momentum", "Adagrad", "Adam")
    },
    ("resnet18", "SGD"): {AGAINST_FUSED: (1.0, 1.0), AGAINST_DEFAULT: (1.0, 1.0)},
    # Torch has no fused one. Against its best is against both that it has.
    ("resnet18", "RMSprop"): {AGAINST_DEFAULT: (2.3, 2.3), AGAINST_FOREACH: (2.3, 2.3)},
}
# The slower engines, asked for by name, wherever they are measured.
OUR_ENGINES = {"foreach / ours, foreach=True": 1.0, "default / ours, fused=False": 1 / 1.2}
ALONE = {("many", "Adam"): {AGAINST_FUSED: 5.0, AGAINST_DEFAULT: 20.0}}
WHOLE_ITERATION = 0.99  # against torch's fused, or its default where that is its best


def of_step(case: Case) -> dict[str, float]:
    """Ratio -> what it should be at the least."""
    key = case.model, case.optimizer
    if case.where == "alone":
        return ALONE.get(key, {})
    here = {ratio: values[case.threads > 1] for ratio, values in IN_THE_LOOP.get(key, {}).items()}
    return {**here, **OUR_ENGINES}


def of_iteration(case: Case) -> dict[str, float]:
    has_fused = "fused" in OPTIMIZERS[case.optimizer].contenders()
    return {AGAINST_FUSED if has_fused else AGAINST_DEFAULT: WHOLE_ITERATION}


def reached(ratio: float, target: float) -> bool:
    """As far as the two digits tell that the tables show."""
    return round(ratio, 2) >= round(target, 2)


def text(ratio: float, target: float | None) -> str:
    """A ratio as it stands in a table, and whether it reached its target."""
    if target is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ({'≥' if reached(ratio, target) else '<'} {target:.2f})"


def missed(result: Result) -> list[str]:
    """One line for each target that was not reached, and an empty list where all were."""
    measured = [
        (f"step {name}", result.step.ratios[name], value) for name, value in of_step(result.case).items()
    ]
    if result.iteration:
        measured += [
            (f"whole iteration {name}", result.iteration.ratios[name], value)
            for name, value in of_iteration(result.case).items()
        ]
    return [
        f"{result.case.label}: {name} {ratio.median:.2f}, not {value:.2f}"
        for name, ratio, value in measured
        if not reached(ratio.median, value)
    ]


def count(result: Result) -> int:
    return len(of_step(result.case)) + (len(of_iteration(result.case)) if result.iteration else 0)
