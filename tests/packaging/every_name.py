"""A user's program in which every public name is used, for the type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch as xp
from torch import Tensor

import torchopt_course as optim
from torchopt_course import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    ElementwiseOptimizer,
    Mixed,
    Momentum,
    RMSprop,
    TensorOptimizer,
    autograd,
    averaged_weights,
    lr_scheduler,
    release_gradients,
    testing,
    transforms,
    validation,
)
from torchopt_course.autograd import Variable, numerical, symbolic
from torchopt_course.lr_scheduler import (
    CyclicLR,
    PlateauDetector,
    RangeTest,
    ReduceLROnPlateau,
    Schedule,
    as_lr,
    lr_range_test,
    preview_schedule,
)
from torchopt_course.playground import page

model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
data = [(torch.randn(16, 4), torch.randint(3, (16,))) for _ in range(60)]


# -- optimizers and transforms -------------------------------------------------------------------------------

SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
Momentum(model.named_parameters(), lr=0.1)
Adagrad([{"params": model[0].parameters(), "lr": 0.1}], lr=0.01)
RMSprop(model.parameters(), alpha=0.9, centered=True)
Adam(model.parameters(), lr=torch.tensor(1e-3), betas=(0.9, 0.99), amsgrad=True, fused=True)
adamw = AdamW(
    transforms.decay_groups(model, 0.1),
    lr=1e-3,
    transforms=[
        transforms.centralize(),
        transforms.clip_value(1.0),
        transforms.clip_norm(1.0),
        transforms.clip_global_norm(1.0),
        transforms.skip_nonfinite(),
        transforms.cautious(),
        transforms.decoupled_decay(0.01),
        transforms.lookahead(5, 0.5),
        transforms.ema(0.99),
    ],
)


class noise_floor(transforms.Transform):
    def __init__(self, floor: float) -> None:
        super().__init__(floor=floor)

    @staticmethod
    def before(p: Any, g: Any, floor: Any) -> Any:
        return xp.where(xp.abs(g) < floor, 0, g)


class Sign(ElementwiseOptimizer):
    states = ("exp_avg",)
    transforms = (noise_floor(1e-8),)

    def __init__(self, params: Any, lr: float = 1e-3, beta: float = 0.9) -> None:
        super().__init__(params, validation.options_of(locals()))

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        validation.fraction("beta", options["beta"])

    @staticmethod
    def coefficients(lr: float, beta: float) -> dict[str, float]:
        return {"lr": lr, "fresh": 1 - beta}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, fresh: Any) -> Any:
        exp_avg = exp_avg + fresh * (g - exp_avg)
        return p - lr * optim.xp.sign(exp_avg), exp_avg


class Heavy(ElementwiseOptimizer):
    states = ("velocity",)

    def __init__(self, params: Any, lr: float = 1e-2, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta})

    @staticmethod
    def coefficients(lr: float, beta: float) -> dict[str, float]:
        return {"lr": lr, "beta": beta}

    @staticmethod
    def rule(p: Any, g: Any, velocity: Any, lr: Any, beta: Any) -> Any:
        velocity = beta * velocity + g
        return p - lr * velocity, velocity


class Normalized(TensorOptimizer):
    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    def why_not(self, param: Tensor) -> str | None:
        return super().why_not(param) or ("it is no matrix" if param.dim() != 2 else None)

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g / (g.norm() + 1e-12)


mixed = Mixed(
    model.named_parameters(),
    [(lambda name, p: p.ndim == 2, Normalized, {"lr": 0.01}), (None, Sign)],
)


def step(optimizer: torch.optim.Optimizer) -> Tensor:
    inputs, targets = data[0]
    optimizer.zero_grad()
    loss: Tensor = torch.nn.functional.cross_entropy(model(inputs), targets)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss


before: float = step(adamw).item()
step(mixed)
report: str = adamw.engine_report() + mixed.engine_report()
with averaged_weights(adamw):
    model(data[0][0])
sgd = optim.SGD(model.parameters(), lr=0.1)
handle = release_gradients(model, sgd)
with handle.accumulate():
    model(data[0][0]).sum().backward()
model(data[0][0]).sum().backward()
handle.remove()
torchs: torch.optim.Optimizer = optim.LBFGS(model.parameters())
again: torch.optim.lr_scheduler.LRScheduler = optim.lr_scheduler.StepLR(sgd, 3)


# -- schedules -----------------------------------------------------------------------------------------------

momentum = Momentum(model.parameters(), lr=0.01)
cyclic = CyclicLR(momentum, 0.01, 0.1, step_size_up=10, mode="triangular2")
plateau = ReduceLROnPlateau(momentum, patience=3)
step(momentum)
cyclic.step()
plateau.step(before)
detector = PlateauDetector(mode="min", patience=2, threshold=1e-3, threshold_mode="rel", cooldown=0)
grows: bool = detector.is_plateau(1.0)
torch.optim.lr_scheduler.CosineAnnealingLR(as_lr(adamw, "weight_decay"), T_max=10)
seen: Schedule = preview_schedule(lambda optimizer: CyclicLR(optimizer, 0.01, 0.1), 20)
rates: list[float] = [rate for rate, *_ in seen.lrs]


def train(batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    momentum.zero_grad()
    loss: Tensor = torch.nn.functional.cross_entropy(model(inputs), targets)
    torch.autograd.backward(loss)
    momentum.step()
    return loss


found: RangeTest = lr_range_test(train, data, model, momentum, iterations=60)
bounds: tuple[float | None, float | None] = (found.base_lr, found.max_lr)
lr_scheduler.LambdaLR(momentum, lambda epoch: 0.9**epoch)


# -- autograd ------------------------------------------------------------------------------------------------


def program(x: Any, y: Any) -> Any:
    return x * y + torch.sin(x)


x, y = torch.tensor(2.0, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
v = Variable(2.0)
(v * v).backward()
gradient: Tensor | None = v.grad
autograd.grad(program, argnums=(0, 1))(x, y)
value, slope = autograd.value_and_grad(program)(x, y)
result, pull = autograd.vjp(program, x, y)
autograd.jvp(program, (x, y), (x, y))
autograd.jacfwd(program)(x, y)
autograd.jacrev(program)(x, y)
autograd.hessian(program)(x, y)
autograd.hvp(lambda x: x**3, (x,), (y,))
print(autograd.trace(program, x=2.0, y=3.0).markdown())
drawn: str = autograd.graph(program, x=2.0, y=3.0, gradients=True).svg(graphviz=False)
numerical.grad(program)(x, y)
formula: str = str(symbolic.formula(program))
with autograd.record(model):
    autograd.functional_call(model, dict(model.named_parameters()), data[0][0]).sum().backward()
with autograd.no_grad(), autograd.enable_grad():
    images, kernel = Variable(torch.randn(1, 1, 4, 4)), torch.randn(1, 1, 3, 3)
    autograd.conv2d_by_unfold(images, kernel)
    autograd.avg_pool2d_by_unfold(images, 2)
    autograd.max_pool2d_by_unfold(images, 2)


@autograd.primitive(x=lambda g, ans: g * ans * (1 - ans))
def squash(x: Any) -> Any:
    return 1 / (1 + torch.exp(-x))


squash(x)
known: Mapping[str, autograd.Primitive] = autograd.PRIMITIVES
assert autograd.primitives.PRIMITIVES is known


# -- testing, validation, playground -------------------------------------------------------------------------

testing.assert_optimizer_agrees(Sign)
testing.assert_gradients_agree(squash, torch.randn(3, dtype=torch.float64))
for check in testing.optimizer_checks(Sign):
    print(check)


@testing.parametrize_with_checks(Sign)
def test_sign(check: Any) -> None:
    check()


for error in (testing.GradientError, testing.NotDifferentiable, testing.OptimizerError):
    assert issubclass(error, Exception)
validation.at_least_zero("lr", 0.1)
validation.not_nan("lr", 0.1)
validation.decay_rates((0.9, 0.99))
validation.pair((0.9, 0.99))
validation.plain(0.1)
Path("playground.html").write_text(page([Heavy]), encoding="utf-8")
