"""One optimizer of ours beside torch's, over every option that changes the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .helpers import ENGINES, NAMES, ours, parameters, theirs

KINDS = ["vector", "matrix", "channels_last", "scalar"]
every_name = pytest.mark.parametrize("name", NAMES)
Optimizer = torch.optim.Optimizer

# Every option that changes the formula, once alone and once with others.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Momentum", {}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"initial_accumulator_value": 0.5}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
]
every_variant = pytest.mark.parametrize(
    ("name", "options"),
    VARIANTS,
    ids=lambda value: "-".join(value) or "plain" if isinstance(value, dict) else value,
)


def side_by_side(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """The same parameters twice, and an optimizer of ours and of torch's."""
    mine, reference = parameters(KINDS, dtype), parameters(KINDS, dtype)
    plain = {key: value for key, value in options.items() if key not in ("fused", "foreach")}
    return mine, reference, ours(name)(mine, **options), theirs(name)(reference, **plain, foreach=False)


# Where an option may be a tensor: torch refuses tensors with foreach=True for Adam and AdamW, and so do we.
every_variant_and_engine = pytest.mark.parametrize(
    ("name", "options", "engine"),
    [
        pytest.param(name, options, engine, id="-".join([name, *options, label]))
        for name, options in VARIANTS
        for label, engine in ENGINES.items()
        if label != "foreach" or not name.startswith("Adam")
    ],
)
