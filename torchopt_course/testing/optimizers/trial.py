"""One optimizer, on one device, in one precision: its parameters, their gradients, and runs of some steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from .verdict import History, NotAsked, compare, short

# From what torch's constructors take first, a list of parameters or of groups, to an optimizer.
Make: TypeAlias = Callable[[Any], Optimizer]
# The gradient in a step of a parameter, by its number and shape, or None.
Gradient: TypeAlias = Callable[[int, int, tuple[int, ...]], Tensor | None]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

SHAPES: Shapes = ((), (1,), (0, 3), (7,), (5, 3), (2, 3, 4, 5), (1001,))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
# A reference that computes its numbers in float32 is as far off as float32 is.
REFERENCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@dataclass(frozen=True)
class Trial:
    """What the checks of one optimizer on one device in one precision begin with.

    Attributes:
        shapes: ``None`` for :data:`SHAPES`, and then some tensors are transposed, channels_last or have gaps.
        coupled: parameters have numbers in common, such as the norm of all gradients.
    """

    make: Make
    name: str
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    dtype: torch.dtype = torch.float64
    steps: int = 10
    seed: int = 0
    tolerance: float | None = None
    shapes: Shapes | None = None
    coupled: bool = False
    fused: bool = True
    reference: Make | None = None
    reference_precision: torch.dtype = torch.float64

    @property
    def bound(self) -> float:
        """How far two ways to compute the same may be apart, relative to a tensor's largest element."""
        return TOLERANCE[self.dtype] if self.tolerance is None else self.tolerance

    def __str__(self) -> str:
        return f"{self.name}, {short(self.dtype)} on {self.device.type}"

    # -- what there is to step -------------------------------------------------------------------------

    def parameters(self) -> list[Parameter]:
        """The same each time."""
        values = [self.normal(i, shape) for i, shape in enumerate(self.shapes or SHAPES)]
        if self.shapes is None:
            values[4] = values[4].t()
            values[5] = values[5].to(memory_format=torch.channels_last)
            values.append(self.normal(len(values), (4, 6))[:, ::2])
        return [Parameter(value) for value in values]

    def plain_parameters(self) -> list[Parameter]:
        """The same, one element after the other in memory."""
        return [Parameter(param.detach().contiguous()) for param in self.parameters()]

    def copies(self, params: Sequence[Tensor]) -> list[Parameter]:
        """Of the parameters as they are now, in the layout that they have."""
        twins = self.parameters()
        with torch.no_grad():
            for twin, param in zip(twins, params, strict=True):
                twin.copy_(param)
        return twins

    def normal(self, number: int, shape: tuple[int, ...]) -> Tensor:
        """Random numbers; another seed for each number."""
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device, self.dtype)

    def gradient(self, step: int, i: int, shape: tuple[int, ...]) -> Tensor:
        """What parameter ``i`` gets in a step."""
        return self.normal(100 * (step + 1) + i, shape)

    def loud(self, step: int, i: int, shape: tuple[int, ...]) -> Tensor:
        """None of its elements is so small that its square vanishes in half precision."""
        grad = self.gradient(step, i, shape)
        return grad + torch.where(grad < 0, -0.5, 0.5).to(grad)

    def negative(self, step: int, i: int, shape: tuple[int, ...]) -> Tensor:
        return -self.gradient(step, i, shape)

    def zero(self, step: int, i: int, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def optimizer(self, params: Sequence[Any], **options: Any) -> Optimizer:
        """A new one; if it has a training mode, as schedule-free ones have, in that."""
        optimizer = self.make(params)
        for group in optimizer.param_groups:
            group.update(options)
        return ready(optimizer)

    def option(self, name: str) -> Any:
        """An option of the parameter group.

        Raises:
            NotAsked: there is none of that name.
        """
        group = self.optimizer(self.parameters()).param_groups[0]
        if name not in group:
            raise NotAsked(f"it has no option {name!r} in its parameter groups")
        return group[name]

    # -- runs ------------------------------------------------------------------------------------------

    def run(
        self,
        optimizer: Optimizer,
        first: int = 0,
        last: int | None = None,
        gradient: Gradient | None = None,
        numbers: Sequence[int] | None = None,
    ) -> History:
        """What there is after each step, from step ``first`` until before ``last``.

        Args:
            gradient: :meth:`gradient` if not given.
            numbers: of the parameters, in the order of the optimizer's groups.
        """
        params = parameters_of(optimizer)
        numbers = range(len(params)) if numbers is None else numbers
        history: History = []
        for step in range(first, self.steps if last is None else last):
            for i, param in zip(numbers, params, strict=True):
                grad = (gradient or self.gradient)(step, i, tuple(param.shape))
                param.grad = None if grad is None else torch.empty_like(param).copy_(grad)
            self.step(optimizer, step)
            history.append(snapshot(optimizer, params, numbers))
        return history

    def step(self, optimizer: Optimizer, number: int = 0) -> Any:
        """With a closure where it must have one; what it draws at random depends on ``number`` only."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(1000 * self.seed + number)
            step: Any = optimizer.step
            if needs_closure(optimizer):
                return step(lambda: torch.ones((), dtype=self.dtype, device=self.device))
            return step()

    def compare(
        self, what: str, mine: History, other: str, expected: History, *, first: int = 0, exact: bool = False
    ) -> None:
        """Both runs are the same, up to rounding if not exactly."""
        compare(what, mine, other, expected, first=first, bound=0.0 if exact else self.bound)

    def refuse_coupled(self) -> None:
        if self.coupled:
            raise NotAsked("its parameters have numbers in common: coupled=True")


def ready(optimizer: Optimizer) -> Optimizer:
    """In its training mode, if it has one."""
    mode = getattr(optimizer, "train", None)
    if callable(mode):
        mode()
    return optimizer


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether ``step`` has a closure that may not be left out."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """In the order of its groups."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def values_of(optimizer: Optimizer) -> list[Tensor]:
    """Its parameters as plain tensors."""
    return [param.detach() for param in parameters_of(optimizer)]


def snapshot(optimizer: Optimizer, params: Sequence[Tensor], numbers: Sequence[int]) -> dict[str, Tensor]:
    """Copies of the parameters and of all tensors in their states, by name."""
    values = {}
    for i, param in zip(numbers, params, strict=True):
        values[f"parameter {i}"] = param.detach().clone()
        for name, tensor in tensors_in(optimizer.state.get(param, {})):
            values[f"{name} of parameter {i}"] = tensor.detach().clone()
    return values


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in dictionaries and lists, with where they are."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors_in(item, f"{name}[{i}]")


def only_parameters(history: History) -> History:
    """Without the states, which may be everybody's own business."""
    return [{name: value for name, value in values.items() if " of " not in name} for values in history]


def only(history: History, numbers: Sequence[int]) -> History:
    """What belongs to some of the parameters."""
    wanted = {f"parameter {i}" for i in numbers}
    return [
        {name: value for name, value in values.items() if name.rpartition(" of ")[2] in wanted}
        for values in history
    ]


def draws_random_numbers(trial: Trial) -> bool:
    """Whether a step uses torch's generator."""
    params = trial.parameters()
    step: Any = trial.optimizer(params).step
    for i, param in enumerate(params):
        param.grad = torch.empty_like(param).copy_(trial.gradient(0, i, tuple(param.shape)))
    drawn = []
    original = torch.random.get_rng_state()
    try:
        for _ in range(2):
            before = torch.random.get_rng_state()
            step(lambda: torch.ones((), dtype=trial.dtype))
            drawn.append(not torch.equal(before, torch.random.get_rng_state()))
    finally:
        torch.random.set_rng_state(original)
    return any(drawn)
