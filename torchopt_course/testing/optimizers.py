"""Is an optimizer the same on every engine, after a checkpoint, and in the paper?

Each check is a run of a few steps that must end like another one, compared step by step.
"""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from ..optimizer import RuleOptimizer

Make: TypeAlias = Callable[[list[Parameter]], Optimizer]
# What a run has left after each step: each parameter and each of its states, by name.
History: TypeAlias = list[dict[str, Tensor]]
# The gradient in a step of a parameter, by its number and shape, or None.
Gradient: TypeAlias = Callable[[int, int, tuple[int, ...]], Tensor | None]

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (0, 3), (7,), (5, 3), (2, 3, 4, 5), (1001,))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
EAGER = {"fused": False, "foreach": False}
FOREACH = {"foreach": True}


class OptimizerError(AssertionError):
    """Two runs that must be the same are not; the message says which, when, where, and by how much."""


def assert_optimizer_agrees(
    make: Make, reference: Make | None = None, *, steps: int = 10, fused: bool = True,
    tolerance: float | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Check an optimizer that you wrote as one formula, as the tests of this package check theirs::

        def test_lion():
            assert_optimizer_agrees(lambda params: Lion(params, lr=0.01), reference=lion_pytorch.Lion)

    On parameters of several shapes and layouts, in float64 and float32, on the CPU and, if there is one, on
    the GPU:

    - the fused engine takes it, and all engines take the same steps as the formula run as torch operations;
    - no gradient is written to, and gradients of zero give no NaN;
    - a checkpoint in the middle and a deep copy go on as if nothing had happened;
    - parameters do not know of one another, nor of steps in which they had no gradient;
    - ``maximize=True`` with -g is descent on g, and a new ``lr`` on the way is heeded.

    Args:
        make: from a list of parameters to your optimizer, such as its class.
        reference: from a list of parameters to an optimizer written by somebody else, or without engines. In
            float64 both must take the same steps.
        steps: in each run, 4 or more.
        fused: insist on the fused engine; ``False`` for rules that only torch can compute.
        tolerance: of two engines, relative to the largest element of a tensor (default 1e-10 in float64, 2e-5
            in float32).
        seed: for parameters and gradients.

    Raises:
        OptimizerError: an ``AssertionError`` that names the check, the step and the element.
        TypeError: ``make`` gives neither an :class:`~torchopt_course.ElementwiseOptimizer` nor a
            :class:`~torchopt_course.TensorOptimizer`.
        ValueError: fewer than 4 steps.
    """
    if steps < 4:
        raise ValueError(f"steps must be at least 4, not {steps}")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for dtype, usual in TOLERANCE.items():
            bound = usual if tolerance is None else tolerance
            trial = _Trial(make, steps, torch.device(device), dtype, bound, seed)
            if fused:
                trial.check_fused_engine()
            trial.check_engines()
            trial.check_zero_gradients()
            trial.check_checkpoints()
            trial.check_independence()
            trial.check_maximize()
            trial.check_learning_rate()
            if reference is not None and dtype is torch.float64:
                trial.check_reference(reference)


@dataclass
class _Trial:
    """The checks of one optimizer on one device in one precision."""

    make: Make
    steps: int
    device: torch.device
    dtype: torch.dtype
    tolerance: float
    seed: int

    # -- runs ------------------------------------------------------------------------------------------

    def parameters(self) -> list[Parameter]:
        """The same each time; one is transposed, one channels_last, one a view with gaps."""
        values = [self.normal(i, shape) for i, shape in enumerate(SHAPES)]
        values[4] = values[4].t()
        values[5] = values[5].to(memory_format=torch.channels_last)
        values.append(self.normal(len(values), (4, 6))[:, ::2])
        return [Parameter(value) for value in values]

    def normal(self, number: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self.device, self.dtype)

    def gradient(self, step: int, i: int, shape: tuple[int, ...]) -> Tensor:
        return self.normal(100 * (step + 1) + i, shape)

    def optimizer(self, params: list[Parameter], **options: Any) -> RuleOptimizer:
        optimizer = self.make(params)
        if not isinstance(optimizer, RuleOptimizer):
            found = type(optimizer).__name__
            raise TypeError(f"make() must give an ElementwiseOptimizer, not {found}, or a TensorOptimizer")
        for group in optimizer.param_groups:
            group.update(options)
        return optimizer

    def run(
        self, optimizer: Optimizer, first: int = 0, last: int | None = None, gradient: Gradient | None = None
    ) -> History:
        """From step `first` until before `last`: what there is after each."""
        params = [param for group in optimizer.param_groups for param in group["params"]]
        history: History = []
        for step in range(first, self.steps if last is None else last):
            given = [(gradient or self.gradient)(step, i, tuple(p.shape)) for i, p in enumerate(params)]
            for param, grad in zip(params, given, strict=True):
                param.grad = None if grad is None else torch.empty_like(param).copy_(grad)
            optimizer.step()
            for i, (param, grad) in enumerate(zip(params, given, strict=True)):
                if grad is not None and not torch.equal(param.grad, grad):
                    self.fail(
                        optimizer,
                        f"step() has changed the gradient of parameter {i}, which others may still need: "
                        "g = g + ... makes a new tensor, g += ... writes into the old one",
                    )
            history.append(snapshot(optimizer, params))
        return history

    # -- checks ----------------------------------------------------------------------------------------

    def check_fused_engine(self) -> None:
        optimizer = self.optimizer([Parameter(self.normal(0, (7,)))], fused=True)
        try:
            self.run(optimizer)
        except RuntimeError as error:
            self.fail(optimizer, f"{error}. With fused=False this check is left out")

    def check_engines(self) -> None:
        eager = self.run(self.optimizer(self.parameters(), **EAGER))
        for what, engine in {"the fastest engine": {}, "foreach=True": FOREACH}.items():
            optimizer = self.optimizer(self.parameters(), **engine)
            self.compare(optimizer, what, self.run(optimizer), "the rule in torch operations", eager)

    def check_zero_gradients(self) -> None:
        def zero(step: int, i: int, shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        optimizer = self.optimizer(self.parameters())
        for step, values in enumerate(self.run(optimizer, gradient=zero), 1):
            for name, value in values.items():
                if not value.isfinite().all():
                    self.fail(optimizer, f"gradients of zero make {name} inf or NaN in step {step}")

    def check_checkpoints(self) -> None:
        middle = self.steps // 2
        params = self.parameters()
        optimizer = self.optimizer(params)
        self.run(optimizer, 0, middle)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        loaded = self.optimizer(self.copies(params))
        loaded.load_state_dict(torch.load(file, weights_only=True))
        copied = copy.deepcopy(optimizer)
        expected = self.run(optimizer, middle)
        after = self.run(loaded, middle)
        self.compare(optimizer, "after a checkpoint", after, "without", expected, first=middle, exact=True)
        # Not exact: a deep copy has no gaps in memory, so another engine may take it.
        self.compare(optimizer, "a deep copy", self.run(copied, middle), "itself", expected, first=middle)

    def copies(self, params: list[Parameter]) -> list[Parameter]:
        twins = self.parameters()
        with torch.no_grad():
            for twin, param in zip(twins, params, strict=True):
                twin.copy_(param)
        return twins

    def check_independence(self) -> None:
        """Each parameter alone, without the steps in which it had no gradient."""

        def has_none(step: int, i: int) -> bool:
            return (step + i) % 3 == 1

        def sometimes(step: int, i: int, shape: tuple[int, ...]) -> Tensor | None:
            return None if has_none(step, i) else self.gradient(step, i, shape)

        optimizer = self.optimizer(self.parameters())
        together = self.run(optimizer, gradient=sometimes)[-1]
        for i, param in enumerate(self.parameters()):
            alone = self.optimizer([param])
            for step in range(self.steps):
                if not has_none(step, i):
                    grad = self.gradient(step, i, tuple(param.shape))
                    self.run(alone, step, step + 1, lambda *_, grad=grad: grad)
            self.compare(
                optimizer,
                "a parameter among others and with steps without a gradient",
                [{name: value for name, value in together.items() if name.endswith(f"parameter {i}")}],
                "the same one alone",
                [snapshot(alone, [param], i)],
                first=self.steps - 1,
            )

    def check_maximize(self) -> None:
        def negative(step: int, i: int, shape: tuple[int, ...]) -> Tensor:
            return -self.gradient(step, i, shape)

        optimizer = self.optimizer(self.parameters(), maximize=True)
        up = self.run(optimizer, gradient=negative)
        down = self.run(self.optimizer(self.parameters()))
        self.compare(optimizer, "maximize=True with -g", up, "descent on g", down, exact=True)

    def check_learning_rate(self) -> None:
        def steps(halved_in: int) -> tuple[RuleOptimizer, History]:
            optimizer = self.optimizer(self.parameters())
            before = self.run(optimizer, 0, halved_in)
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
            return optimizer, before + self.run(optimizer, halved_in)

        wants = inspect.signature(self.optimizer(self.parameters()).coefficients).parameters
        if "lr" in wants:
            optimizer, early = steps(1)
            _, late = steps(self.steps - 1)
            if all(torch.equal(value, late[1][name]) for name, value in early[1].items()):
                self.fail(optimizer, 'group["lr"] was halved after step 1, and step 2 is what it was')

    def check_reference(self, make: Make) -> None:
        optimizer = self.optimizer(self.parameters())
        mine, theirs = self.run(optimizer), self.run(make(self.parameters()))
        for values in (*mine, *theirs):  # the states are everybody's own business
            for name in [name for name in values if " of " in name]:
                del values[name]
        self.compare(optimizer, "your optimizer", mine, "the reference", theirs)

    # -- verdicts --------------------------------------------------------------------------------------

    def compare(
        self, optimizer: Optimizer, what: str, mine: History, other: str, expected: History,
        *, first: int = 0, exact: bool = False,
    ) -> None:  # fmt: skip
        largest: dict[str, float] = {}
        for values in expected:
            for name, value in values.items():
                size = value.abs().max().item() if value.numel() else 0.0
                largest[name] = max(largest.get(name, 0.0), size)
        for step, (got, wanted) in enumerate(zip(mine, expected, strict=True), first + 1):
            if set(got) != set(wanted):
                odd = ", ".join(sorted(set(got) ^ set(wanted)))
                self.fail(optimizer, f"only one of {what} and {other} has, in step {step}: {odd}")
            for name, value in wanted.items():
                bound = 0.0 if exact else self.tolerance * (largest[name] or 1.0)
                wrong = ~((got[name] - value).abs() <= bound)
                if wrong.any():
                    place = tuple(wrong.nonzero()[0].tolist())
                    self.fail(
                        optimizer,
                        f"{what} and {other} differ first in step {step}, in {name}{list(place) or ''}: "
                        f"{got[name][place].item():.9g} and {value[place].item():.9g}",
                    )

    def fail(self, optimizer: Optimizer, why: str) -> NoReturn:
        precision = str(self.dtype).removeprefix("torch.")
        raise OptimizerError(f"{type(optimizer).__name__}, {precision} on {self.device.type}: {why}")


def snapshot(optimizer: Optimizer, params: list[Parameter], number: int = 0) -> dict[str, Tensor]:
    values = {}
    for i, param in enumerate(params, number):
        values[f"parameter {i}"] = param.detach().clone()
        for name, state in optimizer.state.get(param, {}).items():
            if isinstance(state, Tensor):
                values[f"{name} of parameter {i}"] = state.detach().clone()
    return values
