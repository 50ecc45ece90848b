"""One optimizer in one language beside ours: ``python -m benchmarks.languages.measured optax LAMB mlp``.

A process of its own for each, for some packages change torch for the whole process or bring threads of their
own. Its last line is what it found, as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from recipes.zoo.lines import lines_of

from ..machine import torch_threads
from ..timing import Call, Pace, Spread, interleave, microseconds, ratio
from ..workloads import LEARNING_RATE, MODELS, copies, random_parameters
from . import ours, plain

Parameters = list[nn.Parameter]
# The steps of a run that shows that all of them are the same optimizer.
STEPS = 5
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"betas": (0.9, 0.999), "eps": 1e-8},
    "Lion": {"betas": (0.9, 0.99), "weight_decay": 0.1},
    "LAMB": {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1},
}


@dataclass(frozen=True)
class Measured:
    """Microseconds of a step.

    Attributes:
        ratio: the other's time by ours, above one where ours is faster.
        lines: what a user writes.
        difference: between the parameters of the two after a few steps, the largest, relative to the largest
            change.
    """

    language: str
    optimizer: str
    model: str
    threads: int
    version: str
    theirs: Spread
    ours: Spread
    ratio: Spread
    lines: int
    difference: float


class Contender:
    """A step, and the parameters as they are then."""

    def __init__(self, step: Call, values: Callable[[], list[torch.Tensor]]) -> None:
        self.step, self.values = step, values


def of_torch(cls: Callable[..., torch.optim.Optimizer], params: Parameters, options: Any) -> Contender:
    return Contender(cls(params, **options).step, lambda: [param.detach() for param in params])


def in_ours(name: str, params: Parameters, options: Any) -> Contender:
    return of_torch(getattr(ours, name), params, options)


def in_plain(name: str, params: Parameters, options: Any) -> Contender:
    return of_torch(getattr(plain, name), params, options)


def in_compile(name: str, params: Parameters, options: Any) -> Contender:
    step = plain.compiled(partial(getattr(plain, name), **options), params)  # type: ignore[arg-type]
    return Contender(step, lambda: [param.detach() for param in params])


def in_heavyball(name: str, params: Parameters, options: Any) -> Contender:
    module = importlib.import_module(f"{__package__}.in_heavyball")
    return of_torch(getattr(module, name), params, options)


def in_optax(name: str, params: Parameters, options: Any) -> Contender:
    module = importlib.import_module(f"{__package__}.in_optax")
    values = [param.detach().numpy() for param in params]
    grads = [param.grad.numpy() for param in params if param.grad is not None]
    stepping = module.Stepping(getattr(module, name.lower()), values, grads, options)
    return Contender(stepping, lambda: [torch.tensor(value.__array__()) for value in stepping.params])


@dataclass(frozen=True)
class Language:
    """A way to write an optimizer: how it is made, and from which distribution it is."""

    make: Callable[[str, Parameters, Any], Contender]
    distribution: str
    module: str
    spelled: Callable[[str], str] = str


LANGUAGES = {
    "torchopt_course": Language(in_ours, "torchopt-course", "ours"),
    "plain torch": Language(in_plain, "torch", "plain"),
    "torch.compile": Language(in_compile, "torch", "plain"),
    "optax": Language(in_optax, "optax", "in_optax", str.lower),
    "heavyball": Language(in_heavyball, "heavyball", "in_heavyball"),
}


def lines(language: str, optimizer: str) -> int:
    """What a user writes for an optimizer."""
    known = LANGUAGES[language]
    module = importlib.import_module(f"{__package__}.{known.module}")
    return lines_of(getattr(module, known.spelled(optimizer)))


def difference(language: str, optimizer: str) -> float:
    """Between what the language and ours make of the same parameters."""
    torch.manual_seed(0)
    params = random_parameters([(40, 30), (7,)])
    options = {"lr": 1e-2, **OPTIMIZERS[optimizer]}
    both = [make(optimizer, copies(params), options) for make in (LANGUAGES[language].make, in_ours)]
    taken = 1 if language == "torch.compile" else 0  # it has taken a step to make the states
    for contender, count in zip(both, (STEPS - taken, STEPS), strict=True):
        for _ in range(count):
            contender.step()
    largest = max(
        float((mine - param.detach()).abs().max())
        for mine, param in zip(both[1].values(), params, strict=True)
    )
    gaps = (float((a - b).abs().max()) for a, b in zip(*(each.values() for each in both), strict=True))
    return max(gaps) / largest


def measure(language: str, optimizer: str, model: str, threads: int, seconds: float) -> Measured:
    with torch_threads(threads):
        torch.manual_seed(0)
        params = random_parameters(MODELS[model].shapes())
        options = {"lr": LEARNING_RATE, **OPTIMIZERS[optimizer]}
        our_step = in_ours(optimizer, copies(params), options).step
        their_step = LANGUAGES[language].make(optimizer, params, options).step
        samples = interleave({"theirs": their_step, "ours": our_step}, Pace(seconds, least_rounds=5))
    return Measured(
        language=language,
        optimizer=optimizer,
        model=model,
        threads=threads,
        version=version(LANGUAGES[language].distribution),
        theirs=microseconds(samples["theirs"]),
        ours=microseconds(samples["ours"]),
        ratio=ratio(samples["theirs"], samples["ours"]),
        lines=lines(language, optimizer),
        difference=difference(language, optimizer),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.languages.measured")
    parser.add_argument("language", choices=LANGUAGES)
    parser.add_argument("optimizer", choices=OPTIMIZERS)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    # XLA asks the system how many cores it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    try:
        given = options.language, options.optimizer, options.model, options.threads, options.seconds
        found = asdict(measure(*given))
    except ImportError as error:
        found = {"skipped": f"not installed: {error}"}
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main()
