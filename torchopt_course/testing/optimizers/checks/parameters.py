"""Parameters of every shape and layout, in any order, alone, in groups, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ..catalogue import FULL, check
from ..trial import Trial, draws_random_numbers, only, only_parameters, snapshot
from ..verdict import History, NotAsked, OptimizerError


@check()
def check_shapes(trial: Trial) -> None:
    """Scalars, empty tensors, vectors, matrices and more dimensions can be parameters, each alone."""
    refused: list[tuple[str, Exception | None]] = []
    for i, param in enumerate(trial.plain_parameters()):
        try:
            trial.run(trial.optimizer([param]), 0, 3, numbers=[i])
        except Exception as error:
            refused.append((f"{tuple(param.shape)}: {type(error).__name__}: {error}", error))
        else:
            if not param.isfinite().all():
                refused.append((f"{tuple(param.shape)} becomes inf or NaN", None))
    if refused:
        others = f" (and {len(refused) - 1} other shapes)" if len(refused) > 1 else ""
        raise OptimizerError(f"a parameter of shape {refused[0][0]}{others}") from refused[0][1]


@check(*FULL)
def check_layouts(trial: Trial) -> None:
    """Transposed tensors, channels_last and views with gaps take the same steps as contiguous ones.

    And so, in double precision, do contiguous parameters whose gradients are transposed or have gaps.
    """
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, in the order of the memory")
    values = [
        trial.normal(i, shape) for i, shape in enumerate(trial.shapes or ((3, 5), (2, 3, 4, 5), (4, 6)))
    ]
    odd = []
    for value in values:
        if value.dim() == 4:
            odd.append(value.to(memory_format=torch.channels_last))
        elif value.dim() > 1:
            odd.append(value.mT.contiguous().mT)
        gaps = value.new_zeros((*value.shape, 2))[..., 0]
        odd.append(gaps.copy_(value))
    # Copies: a scalar has no gaps, and would be stepped by both.
    plain = [Parameter(value.clone(memory_format=torch.contiguous_format)) for value in odd]
    oddly = trial.run(trial.optimizer([Parameter(value) for value in odd]))
    plainly = trial.run(trial.optimizer(plain))
    trial.compare("odd memory layouts", only_parameters(oddly), "contiguous", only_parameters(plainly))
    if trial.dtype != torch.float64:
        return  # where a matrix is decomposed, a rounding error may turn the result
    values = [value.contiguous() for value in values]
    oddly, plainly = (_with_gradients(trial, values, in_odd_layouts=odd) for odd in (True, False))
    trial.compare("gradients of odd memory layouts", oddly, "contiguous ones", plainly)


def _with_gradients(trial: Trial, values: list[Tensor], *, in_odd_layouts: bool) -> History:
    """A run with gradients that lie in memory in another way in each step, or with contiguous copies."""
    params = [Parameter(value.clone()) for value in values]
    optimizer = trial.optimizer(params)
    history: History = []
    for step in range(trial.steps):
        for i, param in enumerate(params):
            grad = trial.gradient(step, i, tuple(param.shape))
            if param.dim() > 1:
                with_gaps = grad.new_zeros((*grad.shape, 2))[..., 0].copy_(grad)
                grad = with_gaps if step % 2 else grad.mT.contiguous().mT
            param.grad = grad if in_odd_layouts else grad.clone(memory_format=torch.contiguous_format)
        trial.step(optimizer, step)
        history.append(snapshot(optimizer, params, range(len(params))))
    return only_parameters(history)


@check()
def check_order(trial: Trial) -> None:
    """The order in which the parameters are given does not matter."""
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, in the order of the parameters")
    forwards, backwards = trial.parameters(), trial.parameters()[::-1]
    there = only_parameters(trial.run(trial.optimizer(forwards)))
    back = trial.run(trial.optimizer(backwards), numbers=range(len(backwards))[::-1])
    trial.compare("the parameters in reverse order", only_parameters(back), "in order", there)


@check(*FULL)
def check_independence(trial: Trial) -> None:
    """Each parameter alone takes the same steps as among others."""
    trial.refuse_coupled()
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, in the order of the parameters")
    together = trial.run(trial.optimizer(trial.parameters()))
    for i, param in enumerate(trial.parameters()):
        alone = trial.run(trial.optimizer([param]), numbers=[i])
        among = only_parameters(only(together, [i]))
        trial.compare("a parameter among others", among, "the same one alone", only_parameters(alone))


@check(*FULL)
def check_missing_gradients(trial: Trial) -> None:
    """A parameter without a gradient stays as it is, and the step does not count for it."""

    def has_none(step: int, i: int) -> bool:
        return (step + i) % 3 == 1

    def sometimes(step: int, i: int, shape: tuple[int, ...]) -> Tensor | None:
        return None if has_none(step, i) else trial.gradient(step, i, shape)

    params = trial.parameters()
    before = snapshot(trial.optimizer(params), params, range(len(params)))
    history = only_parameters(trial.run(trial.optimizer(params), gradient=sometimes))
    for step, (old, new) in enumerate(zip([before, *history], history, strict=False)):
        for i in range(len(params)):
            name = f"parameter {i}"
            if has_none(step, i) and not torch.equal(old[name], new[name]):
                raise OptimizerError(
                    f"in step {step + 1} {name} had no gradient and was updated all the same"
                )
    trial.refuse_coupled()
    if draws_random_numbers(trial):
        return
    for i, param in enumerate(trial.parameters()):
        alone = trial.optimizer([param])
        for step in range(trial.steps):
            if not has_none(step, i):
                trial.run(alone, step, step + 1, numbers=[i])
        trial.compare(
            "a parameter that had no gradient in some steps",
            only(history, [i])[-1:],
            "without those steps",
            only_parameters([snapshot(alone, [param], [i])]),
            first=trial.steps - 1,
        )


@check(*FULL)
def check_groups(trial: Trial) -> None:
    """Two parameter groups, the second with other options, are as two optimizers."""
    halves = _halves(trial)
    other = _other_options(trial.optimizer(trial.parameters()).param_groups[0])
    both = trial.optimizer([{"params": halves[0]()}, {"params": halves[1](), **other}])
    together = trial.run(both, numbers=_numbers(trial))
    trial.refuse_coupled()
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, in the order of the parameters")
    for half, options in zip(halves, ({}, other), strict=True):
        numbers = _numbers(trial, half)
        alone = trial.run(trial.optimizer([{"params": half(), **options}]), numbers=numbers)
        among = only_parameters(only(together, numbers))
        said = f" with {', '.join(options)} of its own" if options else ""
        trial.compare(f"a parameter group{said}", among, "an optimizer of its own", only_parameters(alone))


def _other_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Other values of the usual options, all of which any group may have."""
    other: dict[str, Any] = {}
    if group.get("lr") is not None:
        other["lr"] = group["lr"] / 2
    for name, value in {"weight_decay": 0.1, "eps": 1e-3}.items():
        if _is_number(group.get(name)):
            other[name] = value
    if _is_number(group.get("momentum")) and group["momentum"]:
        other["momentum"] = 0.9 * group["momentum"]
    betas = group.get("betas")
    if isinstance(betas, (tuple, list)) and all(map(_is_number, betas)):
        other["betas"] = type(betas)(0.9 * beta for beta in betas)
    return other


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@check()
def check_add_param_group(trial: Trial) -> None:
    """A group that is added after some steps begins then, and the others go on."""
    halves = _halves(trial)
    optimizer = trial.optimizer(halves[0]())
    trial.run(optimizer, 0, 2, numbers=_numbers(trial, halves[0]))
    optimizer.add_param_group({"params": halves[1]()})
    together = trial.run(optimizer, 2, numbers=_numbers(trial))
    trial.refuse_coupled()
    if draws_random_numbers(trial):
        raise NotAsked("it draws random numbers, in the order of the parameters")
    for half, begin in zip(halves, (0, 2), strict=True):
        numbers = _numbers(trial, half)
        alone = trial.run(trial.optimizer(half()), begin, numbers=numbers)[-len(together) :]
        among = only_parameters(only(together, numbers))
        what = "a group that was added after 2 steps" if begin else "a group to which another was added"
        trial.compare(what, among, "an optimizer of its own", only_parameters(alone), first=2)


Half = Callable[[], list[Parameter]]


def _halves(trial: Trial) -> tuple[Half, Half]:
    """The parameters with even and with odd numbers, new ones at each call."""
    if len(trial.parameters()) < 2:
        raise NotAsked("it takes two parameters: name more shapes")
    return (lambda: trial.parameters()[::2]), (lambda: trial.parameters()[1::2])


def _numbers(trial: Trial, half: Half | None = None) -> list[int]:
    numbers = list(range(len(trial.parameters())))
    if half is None:
        return numbers[::2] + numbers[1::2]
    return numbers[::2] if torch.equal(half()[0], trial.parameters()[0]) else numbers[1::2]
