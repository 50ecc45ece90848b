"""Everybody's optimizers, as the kit checks them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

import torchopt_course

MATRICES: dict[str, Any] = {"shapes": ((8, 8), (5, 3), (3, 5), (16, 4))}
COUPLED: dict[str, Any] = {"coupled": True}


class Subject(NamedTuple):
    """An optimizer, what the kit must know of it, or the reason why it is not checked."""

    name: str
    make: Callable[..., Any] = Optimizer
    options: dict[str, Any] = {}
    reason: str | None = None


def ours() -> Iterator[Subject]:
    for name in ("SGD", "Momentum", "Adagrad", "RMSprop", "Adam", "AdamW"):
        yield Subject(name, getattr(torchopt_course, name))


def of_torch() -> Iterator[Subject]:
    special: dict[str, dict[str, Any]] = {"LBFGS": COUPLED, "Muon": MATRICES}
    for name in sorted(vars(torch.optim)):
        cls = getattr(torch.optim, name)
        if not _is_optimizer(cls):
            continue
        if name == "SparseAdam":
            yield Subject(name, reason="takes sparse gradients only; the kit's are dense")
            continue
        yield Subject(name, cls, special.get(name, {}))
        for engine in ("foreach", "fused"):
            if engine in inspect.signature(cls).parameters:
                yield Subject(f"{name}({engine}=True)", partial(cls, **{engine: True}))
    for options in ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "foreach": True}):
        chosen: dict[str, Any] = dict(options)
        words = ", ".join(f"{key}={value}" for key, value in options.items())
        yield Subject(f"SGD({words})", partial(torch.optim.SGD, **chosen))


def of_optimi() -> Iterator[Subject]:
    import optimi

    for name in sorted(vars(optimi)):
        cls = getattr(optimi, name)
        if _is_optimizer(cls):
            # Without triton=False it looks for a GPU also where all tensors are on the CPU, and raises.
            options = {"triton": False, **({"lr": 1e-2} if _has_no_default(cls, "lr") else {})}
            yield Subject(name, partial(cls, **options))


def of_timm() -> Iterator[Subject]:
    import timm.optim

    special: dict[str, dict[str, Any]] = {
        "Lamb": COUPLED,
        "Muon": MATRICES,
    }  # Lamb clips by the norm of all gradients
    reasons = {
        "Adahessian": "takes second derivatives: gradients must have a graph",
        "Lookahead": "is put around another optimizer",
    }
    for name in sorted(vars(timm.optim)):
        cls = getattr(timm.optim, name)
        if _is_optimizer(cls) or name == "Lookahead":
            options = {"lr": 1e-2} if _has_no_default(cls, "lr") else {}
            yield Subject(name, partial(cls, **options), special.get(name, {}), reasons.get(name))


# By their papers, parameters have a number in common: an estimated distance, a norm, one decision.
COUPLED_BY_PAPER = {
    *("alig", "dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptlion", "dadaptsgd", "lamb", "lbfgs"),
    *("prodigy", "ranger21", "emonavi", "emolynx", "emofact", "adagc", "adai", "adams", "asgd", "avagrad"),
}
REASONS = {
    "adahessian": "takes second derivatives: gradients must have a graph",
    "sophiah": "takes second derivatives: gradients must have a graph",
    "adalomo": "is fused into the backward pass: takes a model, not parameters",
    "lorarite": "takes the two matrices of a LoRA layer, in pairs",
    "lomo": "is fused into the backward pass: takes a model, not parameters",
    "adammini": "takes a model, not parameters",
    "alig": "must have a closure, though the signature of its step does not say so",
    "bsam": "steps twice in each step: the closure must be the loss itself",
    "demo": "takes a process group of several processes",
    "distributedmuon": "takes a process group of several processes",
}


def of_pytorch_optimizer() -> Iterator[Subject]:
    from pytorch_optimizer import get_supported_optimizers, load_optimizer

    for name in get_supported_optimizers():
        if name in REASONS:
            yield Subject(name, reason=REASONS[name])
            continue
        cls = load_optimizer(name)
        options = {"lr": 1e-2} if _has_no_default(cls, "lr") else {}
        if _has_no_default(cls, "num_iterations"):
            options["num_iterations"] = 1000
        known: dict[str, Any] = dict(COUPLED) if name in COUPLED_BY_PAPER else {}
        if name == "adashift":
            # It waits for ten gradients before its first step, which an empty parameter cannot take.
            known |= {"steps": 20, "shapes": [(), (7,), (5, 3), (1001,)]}
        yield Subject(name, partial(cls, **options), known)


def _is_optimizer(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer


def _has_no_default(cls: Any, name: str) -> bool:
    """Whether it must be given: some have an object as default that says so."""
    parameter = inspect.signature(cls).parameters.get(name)
    return parameter is not None and not isinstance(parameter.default, (int, float, torch.Tensor, type(None)))


# The name in the table: the distribution, and its optimizers.
LIBRARIES: dict[str, tuple[str, Callable[[], Iterator[Subject]]]] = {
    "torchopt_course": ("torchopt-course", ours),
    "torch.optim": ("torch", of_torch),
    "optimi": ("torch-optimi", of_optimi),
    "timm.optim": ("timm", of_timm),
    "pytorch_optimizer": ("pytorch_optimizer", of_pytorch_optimizer),
}
