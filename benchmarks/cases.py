"""One case: an optimizer, a model and a number of threads, in a training loop or alone.

All contenders step the same parameters and states, as if each had loaded the checkpoint of the one before:
where a large tensor happens to lie in memory makes a step up to 1.5 times slower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import perf_counter_ns
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from .machine import free_bytes, torch_threads, watching_others
from .timing import Pace, Samples, Spread, Turn, interleave, microseconds, ratio, take_turns
from .workloads import (
    MODELS,
    OPTIMIZERS,
    OUR_ENGINES,
    OURS,
    ModelCase,
    elements,
    random_parameters,
    share_states,
)

# Who is compared with whom: torch's three with what we do by default, and our slower engines by their names
# with what torch calls so.
PAIRS = (
    *(("default", OURS), ("foreach", OURS), ("fused", OURS)),
    *(("foreach", "ours, foreach=True"), ("default", "ours, fused=False")),
)


@dataclass(frozen=True)
class Case:
    """What to measure: steps ``in the loop``, as in training, or ``alone``, on fixed gradients."""

    where: Literal["in the loop", "alone"]
    optimizer: str
    model: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.where}: {self.optimizer}, {MODELS[self.model].title}, {threads_text(self.threads)}"


@dataclass(frozen=True)
class Times:
    """Side by side in one process.

    Attributes:
        microseconds: of each contender.
        ratios: of each pair that was there, "torch's / ours": above one where ours is faster.
    """

    microseconds: dict[str, Spread]
    ratios: dict[str, Spread]


@dataclass(frozen=True)
class Result:
    """What was measured in one case.

    Attributes:
        iteration: of ``zero_grad``, forward, backward and ``step`` together, in the loop.
        others: the share of the machine that other processes had meanwhile; with more than a little, and most
            of all on several threads, the figures are noise.
    """

    case: Case
    date: str
    tensors: int
    elements: int
    bytes_per_element: int
    rounds: int
    step: Times
    iteration: Times | None = None
    others: float | None = None


class NotEnoughMemoryError(RuntimeError):
    """The contenders do not fit into memory at the same time."""


class Iteration(NamedTuple):
    """Nanoseconds of one training iteration, and of the ``step()`` in it."""

    step: int
    whole: int


def measure(case: Case, pace: Pace) -> Result:
    """Let all contenders of a case take turns.

    Raises:
        NotEnoughMemoryError: they do not fit into memory at the same time.
    """
    torch.manual_seed(0)
    with torch_threads(case.threads), watching_others() as others:
        result = _in_the_loop(case, pace) if case.where == "in the loop" else _alone(case, pace)
    return replace(result, others=others.share)


def _in_the_loop(case: Case, pace: Pace) -> Result:
    """``step()`` where it is used: right after a backward pass that has filled the caches with other things.

    All train the same network. What a step costs the next forward pass is in the iteration.
    """
    model, optimizer = MODELS[case.model], OPTIMIZERS[case.optimizer]
    if model.network is None:
        raise ValueError(f"{model.title} stands for its shapes only, there is no network to train")
    inputs, labels = torch.randn(model.batch_shape), torch.randint(10, (model.batch_shape[0],))
    network = model.network()
    names = [*optimizer.contenders(), *OUR_ENGINES]
    optimizers = {name: optimizer.build(name, network.parameters()) for name in names}
    turns: dict[str, Turn[Iteration]] = {
        name: partial(_train, network, each, inputs, labels) for name, each in optimizers.items()
    }
    turns[names[0]](1)
    share_states(optimizers.values())
    samples = take_turns(turns, pace)
    steps, wholes = (
        {name: [[each[part] for each in turn] for turn in rounds] for name, rounds in samples.items()}
        for part in (0, 1)
    )
    return _result(case, model, _times(steps), _times(wholes), rounds=len(samples[OURS]))


def _train(
    network: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor, count: int
) -> list[Iteration]:
    samples = []
    for _ in range(count):
        start = perf_counter_ns()
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        before = perf_counter_ns()
        optimizer.step()
        after = perf_counter_ns()
        samples.append(Iteration(after - before, after - start))
    return samples


def _alone(case: Case, pace: Pace) -> Result:
    """``step()`` again and again, with the same parameters, gradients and states for all contenders."""
    model, optimizer = MODELS[case.model], OPTIMIZERS[case.optimizer]
    shapes = model.shapes()
    # Parameter, gradient and states; two of temporary results of foreach.
    needed = 4 * elements(shapes) * (4 + optimizer.states)
    free = free_bytes()
    if free is not None and needed > free:
        raise NotEnoughMemoryError(f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
    params = random_parameters(shapes)
    optimizers = {name: optimizer.build(name, params) for name in optimizer.contenders()}
    next(iter(optimizers.values())).step()
    share_states(optimizers.values())
    samples = interleave({name: each.step for name, each in optimizers.items()}, pace)
    return _result(case, model, _times(samples), None, rounds=len(samples[OURS]))


def _times(samples: Samples) -> Times:
    return Times(
        {name: microseconds(rounds) for name, rounds in samples.items()},
        {
            f"{torchs} / {ours}": ratio(samples[torchs], samples[ours])
            for torchs, ours in PAIRS
            if torchs in samples and ours in samples
        },
    )


def _result(case: Case, model: ModelCase, step: Times, iteration: Times | None, rounds: int) -> Result:
    shapes = model.shapes()
    return Result(
        case=case,
        date=datetime.now().astimezone().isoformat(timespec="minutes"),
        tensors=len(shapes),
        elements=elements(shapes),
        bytes_per_element=OPTIMIZERS[case.optimizer].bytes_per_element,
        rounds=rounds,
        step=step,
        iteration=iteration,
    )


def threads_text(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"
