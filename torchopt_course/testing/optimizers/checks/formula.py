"""Does it do what its paper says, and does it descend at all?"""

from __future__ import annotations

import torch
from torch import Tensor

from ..catalogue import HALF, check
from ..trial import REFERENCE, Trial, draws_random_numbers, only_parameters, tensors_in, values_of
from ..verdict import NotAsked, OptimizerError, compare, short

DESCENT = 150  # steps
SMALLEST_CURVATURE = 0.1


@check()
def check_reference(trial: Trial) -> None:
    """The reference takes the same steps."""
    if trial.reference is None:
        raise NotAsked("there is no reference")
    mine = trial.run(trial.optimizer(trial.parameters()))
    theirs = trial.run(trial.reference(trial.parameters()))
    loosest = max(REFERENCE[trial.reference_precision], trial.bound)
    compare("your optimizer", only_parameters(mine), "the reference", only_parameters(theirs), bound=loosest)


@check()
def check_descends(trial: Trial) -> None:
    """150 steps on a quadratic bowl end lower than they begin."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    targets = [-param.detach().clone() for param in params]  # so that weight decay is on the way
    curvatures = [
        SMALLEST_CURVATURE
        ** torch.rand(param.shape, dtype=param.dtype, generator=torch.Generator()).to(param)
        for param in params
    ]

    def loss() -> float:
        bowls = zip(params, targets, curvatures, strict=True)
        return sum(float((c * (p.detach() - t).square()).sum()) / 2 for p, t, c in bowls)

    before = loss()
    for step in range(DESCENT):
        for param, target, curvature in zip(params, targets, curvatures, strict=True):
            param.grad = curvature * (param.detach() - target)
        trial.step(optimizer, step)
    after = loss()
    if not after < before:
        raise OptimizerError(
            f"{DESCENT} steps on a quadratic with curvatures between {SMALLEST_CURVATURE} and 1 lead from "
            f"{before:.6g} to {after:.6g}"
        )


@check()
def check_every_state_moves(trial: Trial) -> None:
    """Each parameter and each tensor in its state changes in some step."""
    params = trial.parameters()
    start = {f"parameter {i}": param.detach().clone() for i, param in enumerate(params)}
    history = trial.run(trial.optimizer(params))
    for name, first in start.items():
        if first.numel() and all(torch.equal(values[name], first) for values in history):
            raise OptimizerError(f"{name} is the same after {trial.steps} steps with gradients")
    empty = {f"parameter {i}" for i, param in enumerate(params) if not param.numel()}
    for name, last in history[-1].items():
        # What keeps a copy of the weights, say, may rightly stay as it is; one number everywhere is a blank.
        blank = last.numel() > 1 and all(_is_blank(values.get(name), last) for values in history)
        if blank and name.rpartition(" of ")[2] not in empty:
            raise OptimizerError(f"{name} is {float(last.flatten()[0]):g} everywhere after each step")


def _is_blank(value: Tensor | None, last: Tensor) -> bool:
    return value is not None and torch.equal(value, last.flatten()[0].expand(value.shape))


@check()
def check_finite_at_zero(trial: Trial) -> None:
    """Gradients of zero give no inf and no NaN."""
    optimizer = trial.optimizer(trial.parameters())
    for step, values in enumerate(trial.run(optimizer, gradient=trial.zero), 1):
        for name, value in values.items():
            if name.startswith("parameter") and not value.isfinite().all():
                raise OptimizerError(f"gradients of zero make {name} inf or NaN in step {step}")


@check(*HALF)
def check_half_precision(trial: Trial) -> None:
    """Steps in half precision go where those in float64 go, as far as rounding lets them."""
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, others in each precision")
    params = trial.parameters()
    wide = [torch.nn.Parameter(param.detach().double()) for param in params]
    start = [param.detach().clone() for param in wide]
    rough, fine = trial.optimizer(params), trial.optimizer(wide)
    trial.run(rough, gradient=trial.loud)
    trial.run(fine, gradient=trial.loud)
    for i, (param, exact, begun) in enumerate(zip(values_of(rough), values_of(fine), start, strict=True)):
        if not param.isfinite().all():
            raise OptimizerError(f"parameter {i} is inf or NaN after {trial.steps} steps")
        way = float((exact - begun).norm())
        off = float((param.double() - exact).norm())
        # Each step may lose two units in the last place of each element; half of the way is for formulas that
        # add up small numbers. What is left to find is overflow, a lost state, another formula.
        allowed = 2 * trial.steps * torch.finfo(trial.dtype).eps * float(begun.norm() + way) + 0.5 * way
        if off > allowed:
            raise OptimizerError(
                f"after {trial.steps} steps parameter {i} is {off:.3g} away (as a norm) from where float64 "
                f"has gone, {way:.3g} from the start; rounding explains {allowed:.3g} in {short(trial.dtype)}"
            )
    for i, param in enumerate(params):
        for name, tensor in tensors_in(rough.state.get(param, {})):
            if param.numel() and tensor.is_floating_point() and not tensor.isfinite().all():
                raise OptimizerError(f"{name} of parameter {i} is inf or NaN after {trial.steps} steps")
