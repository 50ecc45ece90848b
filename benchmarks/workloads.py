"""What is measured: five optimizers, the contenders for each, and the models whose parameters they step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import torchopt_course

from .networks import resnet18

# Torch's three ways to take a step, and those of this package: its default, and two engines by their names.
# On a CPU torch's default is the for-loop.
TORCH_CONTENDERS = ("default", "foreach", "fused")
OURS = "ours"
OUR_ENGINES = {"ours, foreach=True": {"foreach": True}, "ours, fused=False": {"fused": False}}

# So small that the weights stay where they are, however often a step is repeated: a network that has learned
# its batch by heart has gradients near zero, and arithmetic on denormal numbers is slow.
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer under both of its names.

    Attributes:
        states: how many tensors of the parameter's shape it keeps.
    """

    name: str
    of_torch: Callable[..., Optimizer]
    of_ours: Callable[..., Optimizer]
    states: int
    options: dict[str, float] = field(default_factory=dict)

    @property
    def bytes_per_element(self) -> int:
        """Memory traffic that no float32 step can avoid: read p, g and states, write p and states."""
        return 4 * (3 + 2 * self.states)

    def contenders(self) -> list[str]:
        """Torch's that exist, and ours: torch has no fused RMSprop."""
        known = inspect.signature(self.of_torch).parameters
        return [name for name in TORCH_CONTENDERS if name == "default" or name in known] + [OURS]

    def build(self, contender: str, params: Iterable[Tensor]) -> Optimizer:
        options = {"lr": LEARNING_RATE, **self.options}
        if contender == OURS or contender in OUR_ENGINES:
            return self.of_ours(params, **options, **OUR_ENGINES.get(contender, {}))
        engine = {} if contender == "default" else {contender: True}
        return self.of_torch(params, **options, **engine)


OPTIMIZERS = {
    case.name: case
    for case in (
        OptimizerCase("SGD", torch.optim.SGD, torchopt_course.SGD, states=0),
        OptimizerCase("Momentum", torch.optim.SGD, torchopt_course.Momentum, 1, {"momentum": 0.9}),
        OptimizerCase("Adagrad", torch.optim.Adagrad, torchopt_course.Adagrad, states=1),
        OptimizerCase("RMSprop", torch.optim.RMSprop, torchopt_course.RMSprop, states=1),
        OptimizerCase("Adam", torch.optim.Adam, torchopt_course.Adam, states=2),
    )
}


@dataclass(frozen=True)
class ModelCase:
    """The shapes of a model's parameters and, where whole training steps are measured, its network.

    Attributes:
        large: far larger than the caches, so that a step is bound by the memory.
        network: builds the network; ``None`` if only its shapes are used.
        batch_shape: of the inputs that it is trained with.
    """

    name: str
    title: str
    shapes: Callable[[], list[tuple[int, ...]]]
    large: bool = False
    network: Callable[[], nn.Module] | None = None
    batch_shape: tuple[int, ...] = ()


def lenet() -> nn.Sequential:
    """LeNet-5 with rectifiers, for 32 x 32 pictures (28 x 28, padded by two)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def wide_mlp() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(784, 1024), nn.ReLU()),
        *(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)),
    )


def gpt2_shapes(width: int = 768, blocks: int = 12) -> list[tuple[int, ...]]:
    """GPT-2 small: two embeddings, twelve blocks, a last norm; the output layer is the first embedding."""
    norm: list[tuple[int, ...]] = [(width,), (width,)]
    block = [
        *norm,
        *((width, 3 * width), (3 * width,), (width, width), (width,)),
        *norm,
        *((width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    ]
    return [(50257, width), (1024, width), *(block * blocks), *norm]


def _shapes_of(network: Callable[[], nn.Module]) -> Callable[[], list[tuple[int, ...]]]:
    def shapes() -> list[tuple[int, ...]]:
        with torch.device("meta"):  # no memory, no initialisation
            return [tuple(param.shape) for param in network().parameters()]

    return shapes


MODELS = {
    case.name: case
    for case in (
        ModelCase("lenet", "LeNet", _shapes_of(lenet), network=lenet, batch_shape=(64, 1, 32, 32)),
        ModelCase("mlp", "MLP 784-256-10", _shapes_of(mlp), network=mlp, batch_shape=(64, 784)),
        ModelCase(
            *("wide", "wide MLP 784-1024-1024-10", _shapes_of(wide_mlp)),
            network=wide_mlp,
            batch_shape=(64, 784),
        ),
        ModelCase("many", "1000 x 64", lambda: [(64,)] * 1000),
        ModelCase(
            *("resnet18", "ResNet-18", _shapes_of(resnet18)),
            large=True,
            network=resnet18,
            batch_shape=(2, 3, 64, 64),
        ),
        ModelCase("gpt2", "GPT-2 small", gpt2_shapes, large=True),
    )
}


def elements(shapes: Iterable[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes)


def random_parameters(shapes: Iterable[tuple[int, ...]]) -> list[nn.Parameter]:
    """Parameters, each with a small gradient."""
    params = []
    for shape in shapes:
        param = nn.Parameter(torch.empty(shape).uniform_(-1, 1))
        param.grad = torch.empty(shape).uniform_(-1e-2, 1e-2)
        params.append(param)
    return params


def copies(params: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The same values in memory of their own, gradients included."""
    new = []
    for param in params:
        copy = nn.Parameter(param.detach().clone())
        copy.grad = None if param.grad is None else param.grad.clone()
        new.append(copy)
    return new


def share_states(optimizers: Iterable[Optimizer]) -> None:
    """Give the states of the first optimizer, which has taken a step, to the others, as a checkpoint would.

    They stay the same tensors: torch's optimizers and ours keep them under the same names.
    """
    first, *others = optimizers
    for other in others:
        other.state.clear()
        other.state.update(first.state)
