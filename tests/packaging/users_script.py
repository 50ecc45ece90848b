"""A user's program, for the type checkers: what is wrong on purpose has a comment that must be needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch as xp

import torchopt_course as optim
from torchopt_course import ElementwiseOptimizer, autograd
from torchopt_course.testing import assert_optimizer_agrees
from torchopt_course.validation import decay_rates, options_of


class Lion(ElementwiseOptimizer):
    states = ("exp_avg",)

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, options_of(locals()))

    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        decay_rates(options["betas"])

    @staticmethod
    def coefficients(lr: float, betas: tuple[float, float], weight_decay: float) -> dict[str, float]:
        return {"lr": lr, "mix": 1 - betas[0], "fresh": 1 - betas[1], "decay": lr * weight_decay}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any, decay: Any) -> Any:
        update = exp_avg + mix * (g - exp_avg)
        return p - decay * p - lr * xp.sign(update), exp_avg + fresh * (g - exp_avg)


model = torch.nn.Linear(2, 1)
optimizer = optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.99))
optim.SGD(model.parameters(), lr="fast")  # type: ignore[arg-type]
optim.AdamW(model.parameters(), learning_rate=0.1)  # type: ignore[call-arg]
optim.Adm(model.parameters())  # type: ignore[attr-defined]
optim.lr_scheduler.StepLr(optimizer, 3)  # type: ignore[attr-defined]
optim.NAdam(model.parameters(), lr="fast")  # type: ignore[arg-type]  # torch's own, with its types
scheduler = optim.CyclicLR(optimizer, 0.01, 0.1, step_size_up=10)
plateau = optim.ReduceLROnPlateau(Lion(model.parameters()), patience=3)

for _ in range(3):
    optimizer.zero_grad()
    loss = model(torch.ones(4, 2)).square().mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    plateau.step(loss.item())
report: str = optimizer.engine_report()
count: int = optimizer.engine_report()  # type: ignore[assignment]

x = autograd.Variable(2.0)
z = x * x
z.backward()
assert_optimizer_agrees(Lion)
