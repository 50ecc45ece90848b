"""The models that are stepped on a GPU; for a try without one, tiny."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..networks import Transformer, resnet18
from ..workloads import MODELS, ModelCase, gpt2_shapes

TINY_WORDS = 100


def billion_shapes(width: int = 2048, blocks: int = 20) -> list[tuple[int, ...]]:
    """A transformer of 1.0 billion parameters: 20 blocks of width 2048."""
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width), (width,), (width,)]
    return block * blocks


def tiny_transformer() -> nn.Module:
    return Transformer(TINY_WORDS, 16, 16, blocks=1, heads=2)


def tiny_resnet() -> nn.Module:
    return resnet18(10, width=4)


TRANSFORMER = "transformer"
LOOPED = {name: MODELS[name] for name in ("lenet", "mlp", "wide", "resnet18")} | {
    "resnet18": replace(MODELS["resnet18"], batch_shape=(64, 3, 64, 64)),
    TRANSFORMER: ModelCase(
        *(TRANSFORMER, "transformer of 124 M", gpt2_shapes),
        large=True,
        network=Transformer,
        batch_shape=(4, 512),
    ),
}
ALONE = {name: MODELS[name] for name in ("lenet", "many", "resnet18", "gpt2")} | {
    "billion": ModelCase("billion", "1 B", billion_shapes, large=True)
}
TINY = {
    "resnet18": replace(
        LOOPED["resnet18"],
        shapes=lambda: [tuple(param.shape) for param in tiny_resnet().parameters()],
        network=tiny_resnet,
        batch_shape=(2, 3, 32, 32),
    ),
    TRANSFORMER: replace(LOOPED[TRANSFORMER], network=tiny_transformer, batch_shape=(2, 8)),
    "gpt2": replace(ALONE["gpt2"], shapes=lambda: gpt2_shapes(width=4, blocks=1)),
    "billion": replace(ALONE["billion"], shapes=lambda: billion_shapes(width=32, blocks=2)),
}


def looped(name: str, device: torch.device) -> ModelCase:
    return _sized(LOOPED, name, device)


def alone(name: str, device: torch.device) -> ModelCase:
    return _sized(ALONE, name, device)


def _sized(models: dict[str, ModelCase], name: str, device: torch.device) -> ModelCase:
    return models[name] if device.type == "cuda" else TINY.get(name, models[name])


def batch_for(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs, and the classes that they belong to: for each picture one, for each word the next one."""
    if isinstance(network, Transformer):
        words = network.words.num_embeddings
        return torch.randint(words, shape, device=device), torch.randint(
            words, shape, device=device
        ).flatten()
    return torch.randn(shape, device=device), torch.randint(10, shape[:1], device=device)


def parameters(shapes: list[tuple[int, ...]], device: torch.device) -> list[nn.Parameter]:
    """Made where they are used, each with a small gradient."""
    params = []
    for shape in shapes:
        param = nn.Parameter(torch.empty(shape, device=device).uniform_(-1, 1))
        param.grad = torch.empty(shape, device=device).uniform_(-1e-2, 1e-2)
        params.append(param)
    return params
