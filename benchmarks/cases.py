"""One case: an optimizer, a model and a number of threads; the step alone, or a whole training iteration."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from .machine import free_bytes, torch_threads
from .timing import Call, Pace, Samples, Spread, interleave, microseconds, ratio
from .workloads import OURS, ModelCase, OptimizerCase, copies, elements, random_parameters

BATCH_SIZE = 64


@dataclass(frozen=True)
class Case:
    """What was measured in one case.

    Attributes:
        times: microseconds of each contender.
        ratios: of each of torch's contenders to ours, above one where ours is faster.
    """

    optimizer: str
    model: str
    threads: int
    tensors: int
    elements: int
    bytes_per_element: int
    rounds: int
    times: dict[str, Spread]
    ratios: dict[str, Spread]


class NotEnoughMemoryError(RuntimeError):
    """The contenders do not fit into memory at the same time."""


def step_alone(optimizer: OptimizerCase, model: ModelCase, threads: int, pace: Pace) -> Case:
    """``optimizer.step()`` on fixed gradients; each contender has parameters, gradients, states of its own.

    Raises:
        NotEnoughMemoryError: they do not fit into memory at the same time.
    """
    shapes = model.shapes()
    names = optimizer.contenders()
    # Parameter, gradient and states of each; one set to copy from; two of temporary results of foreach.
    needed = 4 * elements(shapes) * (len(names) * (2 + optimizer.states) + 4)
    free = free_bytes()
    if free is not None and needed > free:
        raise NotEnoughMemoryError(f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
    with torch_threads(threads):
        torch.manual_seed(0)
        original = random_parameters(shapes)
        steps: dict[str, Call] = {name: optimizer.build(name, copies(original)).step for name in names}
        del original
        return _case(optimizer, model, threads, shapes, interleave(steps, pace))


def training_iteration(optimizer: OptimizerCase, model: ModelCase, threads: int, pace: Pace) -> Case:
    """``zero_grad``, forward, backward and ``step`` together, for torch's default, torch's fused and ours.

    A step that leaves the processor in a state that slows down the next forward pass pays for it here.
    """
    if model.network is None:
        raise ValueError(f"{model.title} stands for its shapes only, there is no network to train")
    with torch_threads(threads):
        torch.manual_seed(0)
        inputs = torch.randn(BATCH_SIZE, *model.input_shape)
        labels = torch.randint(10, (BATCH_SIZE,))
        original = model.network()
        iterations: dict[str, Call] = {}
        for name in optimizer.contenders():
            if name != "foreach":
                network = deepcopy(original)
                trained_by = optimizer.build(name, network.parameters())
                iterations[name] = _iteration(network, trained_by, inputs, labels)
        return _case(optimizer, model, threads, model.shapes(), interleave(iterations, pace))


def _iteration(
    network: nn.Module, optimizer: Optimizer, inputs: Tensor, labels: Tensor
) -> Callable[[], None]:
    def iteration() -> None:
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return iteration


def _case(
    optimizer: OptimizerCase,
    model: ModelCase,
    threads: int,
    shapes: list[tuple[int, ...]],
    samples: Samples,
) -> Case:
    return Case(
        optimizer=optimizer.name,
        model=model.name,
        threads=threads,
        tensors=len(shapes),
        elements=elements(shapes),
        bytes_per_element=optimizer.bytes_per_element,
        rounds=len(samples[OURS]),
        times={name: microseconds(rounds) for name, rounds in samples.items()},
        ratios={name: ratio(rounds, samples[OURS]) for name, rounds in samples.items() if name != OURS},
    )
