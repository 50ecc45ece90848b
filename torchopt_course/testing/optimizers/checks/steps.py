"""What a step does to what it is given, besides the update."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ..catalogue import FULL, check
from ..memory import Alive, only_what_is_new
from ..trial import Trial, needs_closure, only_parameters, snapshot, tensors_in
from ..verdict import History, NotAsked, OptimizerError

MEMORY = 4  # parameters are enough to see it grow
COUNTED = (120, 170, 220)  # a history of a hundred steps is full by then


@check(*FULL)
def check_repeats(trial: Trial) -> None:
    """The same run twice, with the same random seed for torch, gives the same bits."""
    once, again = (trial.run(trial.optimizer(trial.parameters())) for _ in range(2))
    trial.compare("a run", once, "the same again", again, exact=True)


@check(*FULL)
def check_gradients_untouched(trial: Trial) -> None:
    """Gradients are as before after a step: others, such as logging or a second optimizer, may need them."""
    decays = {"weight_decay": 0.1} if "weight_decay" in _group(trial) else {}
    for options in ({}, decays)[: 1 + bool(decays)]:
        params = trial.parameters()
        optimizer = trial.optimizer(params, **options)
        for step in range(3):
            given = [trial.gradient(step, i, tuple(p.shape)) for i, p in enumerate(params)]
            for param, grad in zip(params, given, strict=True):
                param.grad = torch.empty_like(param).copy_(grad)
            trial.step(optimizer, step)
            for i, (param, grad) in enumerate(zip(params, given, strict=True)):
                if param.grad is None or not torch.equal(param.grad, grad):
                    raise OptimizerError(
                        f"step() has changed the gradient of parameter {i}, which others may still need"
                        f"{' (weight_decay=0.1)' if options else ''}: g = g + ... makes a new tensor, "
                        "g += ... writes into the old one"
                    )


@check()
def check_gradients_reused(trial: Trial) -> None:
    """After a step its gradients may be overwritten, as by DDP and ``zero_grad(set_to_none=False)``."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    grads = [torch.empty_like(param) for param in params]
    history: History = []
    for step in range(trial.steps):
        for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
            param.grad = grad.copy_(trial.gradient(step, i, tuple(param.shape)))
        trial.step(optimizer, step)
        for grad in grads:
            grad.fill_(math.nan)
        history.append(snapshot(optimizer, params, range(len(params))))
    fresh = trial.run(trial.optimizer(trial.parameters()))
    trial.compare(
        "with gradients that are overwritten after each step",
        only_parameters(history),
        "with new ones",
        only_parameters(fresh),
    )


@check()
def check_zero_grad(trial: Trial) -> None:
    """``zero_grad()`` leaves no parameter of any group a gradient; ``set_to_none=False`` leaves zeros."""
    params = trial.parameters()
    try:
        optimizer = trial.optimizer([{"params": params[::2]}, {"params": params[1::2]}])
    except Exception:  # the check of groups says so
        optimizer = trial.optimizer(params)
    for set_to_none in (True, False):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.zero_grad(set_to_none=set_to_none)
        for i, param in enumerate(params):
            grad = param.grad
            if grad is not None and (set_to_none or grad.count_nonzero()):
                raise OptimizerError(
                    f"after zero_grad(set_to_none={set_to_none}) parameter {i} has a gradient "
                    + ("that is not zero" if grad.count_nonzero() else "of zeros")
                )


@check()
def check_hooks(trial: Trial) -> None:
    """Hooks before and after a step are called, torch's global ones too."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    called: list[str] = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: called.append("before")),
        optimizer.register_step_post_hook(lambda *_: called.append("after")),
        register_optimizer_step_pre_hook(lambda *_: called.append("globally before")),
        register_optimizer_step_post_hook(lambda *_: called.append("globally after")),
    ]
    try:
        trial.run(optimizer, 0, 1)
    finally:
        for handle in handles:
            handle.remove()
    missed = [when for when in ("before", "after", "globally before", "globally after") if when not in called]
    if missed:
        raise OptimizerError(
            f"step() has not called the hooks that were registered {' and '.join(missed)} it"
        )


@check()
def check_in_place(trial: Trial) -> None:
    """Parameters keep their memory, which views, tied weights and other processes share, and stay leaves."""
    params = trial.parameters()
    aliases, addresses = [param.detach() for param in params], [param.data_ptr() for param in params]
    optimizer = trial.optimizer(params)
    trial.run(optimizer, 0, 2)
    for i, (param, alias, address) in enumerate(zip(params, aliases, addresses, strict=True)):
        if param.data_ptr() != address or not torch.equal(param, alias):
            raise OptimizerError(f"step() gives parameter {i} other memory instead of writing into its own")
        if not param.is_leaf or not param.requires_grad:
            raise OptimizerError(f"after a step parameter {i} is a result of operations, no leaf any more")
        for name, tensor in tensors_in(optimizer.state.get(param, {})):
            if tensor.requires_grad:
                raise OptimizerError(
                    f"{name} of parameter {i} requires a gradient: step() is recorded by autograd, and keeps "
                    "the graphs of all steps"
                )


@check()
def check_counts_steps(trial: Trial) -> None:
    """What is called "step" counts the steps."""
    params = trial.parameters()
    optimizer = trial.optimizer(params)
    counted: list[float] = []
    for step in range(4):
        trial.run(optimizer, step, step + 1)
        where = _counters(optimizer, params)
        counted.append(where[0] if where else float("nan"))
        if any(count != where[0] for count in where):
            raise OptimizerError(
                f'after step {step + 1} the parameters\' "step" are not all the same: {where}'
            )
    apart = {b - a for a, b in pairwise(counted)}
    if counted[0] == counted[0] and apart != {1.0}:
        raise OptimizerError(
            f'"step" is {", ".join(f"{count:g}" for count in counted)} after 1, 2, 3, 4 steps'
        )
    if counted[0] != counted[0]:
        raise NotAsked('it keeps no "step"')


def _counters(optimizer: Optimizer, params: list[Any]) -> list[float]:
    kept = [optimizer.state[param] for param in params if param in optimizer.state]
    places = [*kept, *optimizer.param_groups]
    return [float(place["step"]) for place in places if isinstance(place.get("step"), (int, float, Tensor))]


@check()
def check_closure(trial: Trial) -> None:
    """``step(closure)`` computes the gradients in it, takes the same step, and returns its loss."""
    params, twins = trial.parameters(), trial.parameters()
    mine, other = trial.optimizer(params), trial.optimizer(twins)
    losses: list[Tensor] = []
    histories: tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]] = ([], [])
    for step in range(3):
        given = [trial.gradient(step, i, tuple(p.shape)) for i, p in enumerate(params)]

        def closure(given: list[Tensor] = given) -> Tensor:
            mine.zero_grad()
            if not torch.is_grad_enabled():
                raise OptimizerError("step(closure) calls it without torch.enable_grad(): it cannot backward")
            sums = [(p * g).sum() for p, g in zip(params, given, strict=True)]
            loss = torch.stack(sums).sum()
            loss.backward()
            losses.append(loss.detach())
            return loss

        losses.clear()
        with torch.random.fork_rng(devices=[trial.device] if trial.device.type == "cuda" else []):
            torch.manual_seed(1000 * trial.seed + step)
            step_with: Any = mine.step
            result = step_with(closure)
        if not losses:
            raise OptimizerError("step(closure) does not call it")
        returned = result.detach() if isinstance(result, Tensor) else result
        if returned is None or float(returned) != float(losses[0]):
            raise OptimizerError(f"step(closure) returns {returned}, not the loss {float(losses[0]):.9g}")
        if needs_closure(mine):
            continue
        histories[0].append({f"parameter {i}": p.detach().clone() for i, p in enumerate(params)})
        histories[1].append(*only_parameters(trial.run(other, step, step + 1)))
    trial.compare("step(closure)", histories[0], "step() with the same gradients", histories[1])


@check()
def check_no_growth(trial: Trial) -> None:
    """100 more steps keep nothing: no gradient, no tensor, no entry in a list or dictionary."""
    params = trial.parameters()[:MEMORY]
    optimizer = trial.optimizer(params)
    alive = []
    with only_what_is_new():
        for step in range(1, COUNTED[-1] + 1):
            for i, param in enumerate(params):
                param.grad = torch.empty_like(param).copy_(trial.gradient(step, i, tuple(param.shape)))
            trial.step(optimizer, step)
            if step in COUNTED:
                alive.append(Alive.now(optimizer))
    for what in Alive._fields:
        first, second, third = (getattr(count, what) for count in alive)
        if second - first >= 25 and third - second >= 25:
            words = what.replace("_", " ")
            raise OptimizerError(
                f"after 120, 170 and 220 steps there are {first}, {second} and {third} {words}: memory grows"
            )


def _group(trial: Trial) -> dict[str, Any]:
    return trial.optimizer(trial.parameters()).param_groups[0]
