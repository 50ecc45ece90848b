"""An optimizer that is one formula: its engines take the same steps."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from ....elementwise import ElementwiseOptimizer
from ..catalogue import FULL, HALF, check
from ..trial import Trial, values_of
from ..verdict import NotAsked, OptimizerError

EAGER = {"fused": False, "foreach": False}
ENGINES: dict[str, dict[str, bool]] = {"the fastest engine": {}, "foreach=True": {"foreach": True}}


def _formula(trial: Trial, *, insists: bool = False) -> ElementwiseOptimizer:
    optimizer = trial.optimizer(trial.parameters())
    if not isinstance(optimizer, ElementwiseOptimizer):
        raise NotAsked("it is no ElementwiseOptimizer")
    if insists and not trial.fused:
        raise NotAsked("fused=False")
    return optimizer


@check(*FULL)
def check_fused_engine(trial: Trial) -> None:
    """The fused engine takes it."""
    _formula(trial, insists=True)
    optimizer = trial.optimizer([Parameter(trial.normal(0, (7,)))], fused=True)
    try:
        trial.run(optimizer)
    except RuntimeError as error:
        raise OptimizerError(f"{error}. With fused=False this check is left out") from error


@check(*FULL)
def check_engines_agree(trial: Trial) -> None:
    """All engines take the same steps as the formula run as torch operations."""
    _formula(trial)
    eager = trial.run(trial.optimizer(trial.parameters(), **EAGER))
    for what, engine in ENGINES.items():
        optimizer = trial.optimizer(trial.parameters(), **engine)
        trial.compare(what, trial.run(optimizer), "the rule in torch operations", eager)


@check(*HALF)
def check_engines_in_half(trial: Trial) -> None:
    """No engine is further from float64 in half precision than the formula run as torch operations is."""
    _formula(trial)
    wide = [Parameter(param.detach().double()) for param in trial.parameters()]
    trial.run(trial.optimizer(wide, **EAGER), gradient=trial.loud)
    exactly = [param.detach() for param in wide]
    off = {}
    for what, engine in {"torch": EAGER, **ENGINES}.items():
        optimizer = trial.optimizer(trial.parameters(), **engine)
        trial.run(optimizer, gradient=trial.loud)
        off[what] = [
            float((p.double() - e).norm()) for p, e in zip(values_of(optimizer), exactly, strict=True)
        ]
    last_place = torch.finfo(trial.dtype).eps
    for what in ENGINES:
        for i, (mine, theirs, exact) in enumerate(zip(off[what], off["torch"], exactly, strict=True)):
            allowed = 2 * theirs + 2 * last_place * float(exact.norm())
            if not mine <= allowed:
                raise OptimizerError(
                    f"with {what} parameter {i} is {mine:.3g} away from float64 (as a norm), the rule in "
                    f"torch operations {theirs:.3g}"
                )


@check(torch.float64, torch.float32, torch.bfloat16)
def check_cuda_kernel(trial: Trial) -> None:
    """Triton compiles the CUDA kernel, which needs no GPU."""
    from ..cuda import compile_for_cuda

    compile_for_cuda(_formula(trial, insists=True), trial.dtype)
