"""The LR range test: raise the learning rate batch by batch and watch the loss, to find CyclicLR's bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, SupportsFloat, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from .groups import Group, rates_of, set_lr
from .range_bounds import default_smoothing, suggest_bounds
from .range_curve import RangeTest, Recording, Result, Spacing
from .snapshot import put_back_afterwards
from .updates import UpdateCounter

# One iteration of training: takes a batch, returns the loss, or the loss and the accuracy.
Step: TypeAlias = Callable[[Any], SupportsFloat | tuple[SupportsFloat, SupportsFloat]]
ENDED = object()


def lr_at(i: float, iterations: int, start_lr: float, end_lr: float, spacing: Spacing) -> float:
    """The learning rate of iteration i = 0, 1, ..., iterations - 1, from ``start_lr`` to ``end_lr``."""
    share = i / (iterations - 1)
    if spacing == "linear":
        return start_lr + (end_lr - start_lr) * share
    return float(start_lr * (end_lr / start_lr) ** share)


def lr_range_test(
    step: Step,
    batches: Iterable[Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    iterations: int = 300,
    spacing: Spacing = "exponential",
    smoothing: float | None = None,
    diverge_at: float = 5.0,
    also: Iterable[Any] = (),
) -> RangeTest:
    r"""Train for some iterations with a rising learning rate, put everything back, and return the curve.

    Iteration i of n uses the learning rate

    .. math::
        \eta_i = \eta_\text{start} \left(\frac{\eta_\text{end}}{\eta_\text{start}}\right)^{i/(n-1)}
        \qquad \text{or, linear,} \qquad
        \eta_i = \eta_\text{start} + (\eta_\text{end} - \eta_\text{start}) \, \frac{i}{n-1}

    and the curve is smoothed by :math:`m \leftarrow m + s (\ell - m)`, corrected for its start at 0.

    ``step`` is your own training step, with all that belongs to it, such as autocast, a gradient scaler or
    clipping::

        def step(batch):
            inputs, targets = batch
            optimizer.zero_grad()
            scores = model(inputs)
            loss = F.cross_entropy(scores, targets)
            loss.backward()
            optimizer.step()
            return loss  # or: return loss, (scores.argmax(1) == targets).float().mean()

        found = lr_range_test(step, loader, model, optimizer)
        scheduler = CyclicLR(optimizer, found.base_lr, found.max_lr, step_size_up=4 * len(loader))

    It may accumulate gradients and step the optimizer only now and then: an iteration ends with a step, and
    its loss is the mean over the batches that led to it. Where no step is ever seen, each batch is one.

    The model is tested in training mode. One that was left in evaluation mode, or each such one in a
    ``ModuleList``, is set to training by ``model.train()``; parts in evaluation mode of a model that trains,
    such as a frozen batch norm, stay as they are.

    Afterwards model, optimizer and random numbers are as before, also when ``step`` raises; see
    :func:`~torchopt_course.lr_scheduler.snapshot.put_back_afterwards`. The copies take as much memory as
    model and optimizer. Groups with learning rates of their own keep their ratios: the rates of the test are
    those of the group with the largest. Ctrl-C ends the test, and the curve so far is returned.

    Args:
        step: takes a batch, trains on it, returns the loss, or the loss and the accuracy: numbers or tensors
            of one. On several processes let it return the mean over all, so that all stop together.
        batches: a ``DataLoader``, or anything to iterate over, from its beginning; begun again when it ends.
            An iterator, unlike a loader, loses the batches that are taken from it, and its end ends the test.
        model: what ``step`` trains; ``nn.ModuleList([a, b])`` for several.
        optimizer: what it trains with.
        start_lr, end_lr: where the rate begins and ends (default 1e-7 and 10).
        iterations: how many steps of the optimizer (default 300).
        spacing: ``"exponential"`` (default), or ``"linear"`` as in the paper, where you know the magnitude.
        smoothing: s, the weight of the newest loss, in (0, 1]; 1 does not smooth. Default: 16 / (16 +
            iterations), with which the average lags behind by a sixteenth of the test.
        diverge_at: stop when the smoothed loss is so many times as far above its lowest as it had been at
            most before it was there (default 5).
        also: further objects to put back that have a ``state_dict``, such as a ``GradScaler``.

    Raises:
        ValueError: an option out of range, no batches.
        TypeError: an argument of another kind, or ``step`` returns no number.

    Source: lecture, "Cyclical learning rates"; Smith, arXiv 1506.01186, section 3.3.
    """
    check_objects(step, batches, model, optimizer, also)
    check_options(start_lr, end_lr, iterations, spacing, smoothing, diverge_at)
    iterations = int(iterations)
    smoothing = default_smoothing(iterations) if smoothing is None else float(smoothing)
    rate_at = partial(
        lr_at, iterations=iterations, start_lr=float(start_lr), end_lr=float(end_lr), spacing=spacing
    )
    curve = Recording(iterations, smoothing, float(diverge_at))
    with put_back_afterwards(model, optimizer, also, batches):
        set_to_training(model)
        delay = delay_of(optimizer.param_groups)
        set_rates = partial(set_lrs, optimizer, shares_of(optimizer.param_groups))
        with UpdateCounter(optimizer, before_first=lambda: set_rates(rate_at(0))) as updates:
            stopped, exploded = record(curve, step, batches, updates, iterations, rate_at, set_rates)
    if not updates.count:
        delay = 0  # then the loss can only be a function of the rate itself
    base_lr, max_lr, how = suggest_bounds(
        curve.losses, curve.smoothed, smoothing, iterations, rate_at, delay, exploded
    )
    if base_lr is None and not updates.count:
        how += "; no step of the optimizer was seen"
    return RangeTest(
        curve.lrs, curve.losses, curve.smoothed, curve.accuracies, spacing, stopped, base_lr, max_lr, how
    )


def record(
    curve: Recording,
    step: Step,
    batches: Iterable[Any],
    updates: UpdateCounter,
    iterations: int,
    rate_at: Callable[[float], float],
    set_rates: Callable[[float], object],
) -> tuple[str, bool]:
    """Train with rising rates. Returns where it ended and why, and whether that was an explosion."""
    feed = endless(batches)
    waiting: list[Result] = []  # the results of batches whose gradients have not been used yet
    longest_wait = 1
    try:
        while len(curve.lrs) < iterations:
            lr, steps_before = rate_at(len(curve.lrs)), updates.count
            set_rates(lr)
            if (batch := next(feed, ENDED)) is ENDED:
                return f"after {len(curve.lrs)} of {iterations} iterations, with the batches", False
            result = as_numbers(step(batch))
            updates.look()
            if not math.isfinite(result[0]):
                return f"at learning rate {lr:.3g}, where the loss was {result[0]}", True
            waiting.append(result)
            if updates.count > steps_before:
                if steps_before == 0:  # all batches so far were for this first step, done with the first rate
                    waiting, lr = [*curve.results, *waiting], rate_at(0)
                    curve.clear()
                longest_wait = max(longest_wait, len(waiting))
            elif updates.count:
                if len(waiting) > 10 * longest_wait:
                    return f"at learning rate {lr:.3g}, where {len(waiting)} batches led to no step", True
                continue
            curve.add(lr, waiting)
            waiting = []
            if curve.exploded:
                return f"at learning rate {lr:.3g}, where the loss was far above all it had been", True
    except KeyboardInterrupt:
        return f"after {len(curve.lrs)} of {iterations} iterations, by Ctrl-C", False
    return f"after all {iterations} iterations", False


# ---------------------------------------------------------------- the details


def check_objects(step: Any, batches: Any, model: Any, optimizer: Any, also: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    if not isinstance(model, nn.Module):
        raise TypeError(f"{type(model).__name__} is not a Module")
    if not callable(step):
        raise TypeError(f"`step` must be a function that takes a batch and returns the loss, got {step!r}")
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise TypeError(f"`batches` must be a DataLoader, or else to iterate over, got {batches!r}")
    if not hasattr(also, "__iter__"):
        raise TypeError(f"`also` takes a list of objects, got {also!r}")


def check_options(
    start_lr: float, end_lr: float, iterations: int, spacing: str, smoothing: float | None, diverge_at: float
) -> None:
    numbers = {"start_lr": start_lr, "end_lr": end_lr, "iterations": iterations, "diverge_at": diverge_at}
    for name, number in {**numbers, "smoothing": 1 if smoothing is None else smoothing}.items():
        if isinstance(number, str) or not hasattr(number, "__float__"):
            raise TypeError(f"Invalid {name}: {number!r} (expected a number)")
    if spacing not in ("exponential", "linear"):
        raise ValueError(f"spacing {spacing!r} is unknown (expected 'exponential' or 'linear')")
    if not (start_lr > 0 or (start_lr == 0 and spacing == "linear")):
        raise ValueError(f"Invalid start_lr: {start_lr} (expected a number > 0; with linear spacing also 0)")
    if not start_lr < end_lr < math.inf:
        raise ValueError(f"Invalid end_lr: {end_lr} (expected a number above start_lr, {start_lr})")
    if not (iterations >= 2 and iterations == int(iterations)):
        raise ValueError(f"Invalid iterations: {iterations} (expected a whole number from 2 up)")
    if smoothing is not None and not 0 < smoothing <= 1:
        raise ValueError(f"Invalid smoothing: {smoothing} (expected a number in (0, 1])")
    if not diverge_at > 1:
        raise ValueError(f"Invalid diverge_at: {diverge_at} (expected a number > 1)")


def set_to_training(model: nn.Module) -> None:
    """Training mode for what was left in evaluation mode as a whole."""
    parts = list(model.modules())[1:]
    if not model.training or (parts and not any(part.training for part in parts)):
        model.train()  # itself, or what it wraps: a container made of evaluated models is new, and trains
    elif isinstance(model, nn.ModuleList | nn.ModuleDict):
        for child in model.children():
            set_to_training(child)


def shares_of(groups: list[Group]) -> list[float]:
    """Each group's learning rate, as a share of the largest."""
    lrs = [float(group["lr"]) for group in groups]
    largest = max(lrs)
    return [lr / largest if largest else 1.0 for lr in lrs]


def delay_of(groups: list[Group]) -> float:
    """How many iterations it takes until the losses show what a learning rate does.

    One, for a loss is computed before the step of its iteration. With momentum a step goes mostly where the
    gradients before it pointed, and a rate that is too high is found out later still: one and a half, as
    measured. With one, networks of several layers explode at bounds from 29 to 63 iterations; with two,
    training between the bounds of such short tests is slower than it need be.
    """
    return 2.5 if any(rates_of(group)[1] for group in groups) else 1.0


def set_lrs(optimizer: Optimizer, shares: list[float], lr: float) -> None:
    for group, share in zip(optimizer.param_groups, shares, strict=True):
        set_lr(group, lr * share)


def endless(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, again and again; an iterator's only once."""
    count = 0
    while True:
        before = count
        for batch in batches:
            count += 1
            yield batch
        if not count:
            raise ValueError("`batches` ended after 0 batches")
        if count == before:
            return


def as_numbers(result: Any) -> Result:
    """The loss and the accuracy that ``step`` returned; NaN where it gave no accuracy."""
    loss, accuracy = result if isinstance(result, tuple) and len(result) == 2 else (result, math.nan)
    try:
        return as_number(loss), as_number(accuracy)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"`step` must return the loss, or the loss and the accuracy, as numbers; it returned {result!r}"
        ) from error


def as_number(value: SupportsFloat) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)
