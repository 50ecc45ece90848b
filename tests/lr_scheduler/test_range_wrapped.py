"""A range test of an optimizer that is made of others leaves no trace in those either."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchopt_course as oc
from torchopt_course import lr_range_test
from torchopt_course.lr_scheduler import as_lr


class Lookahead(torch.optim.Optimizer):
    """As it is often written: the groups are those of the optimizer inside, its own states are attributes."""

    def __init__(self, inner: torch.optim.Optimizer, in_list: bool) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.param_groups = inner.param_groups
        self.inners = [inner] if in_list else inner
        self.inner_step = inner.step
        inner.outer = self  # type: ignore[attr-defined]  # so that each holds the other
        self.steps = 0
        self.slow = [p.detach().clone() for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner_step()
        self.steps += 1
        if self.steps % 3 == 0:
            params = [p for group in self.param_groups for p in group["params"]]
            for slow, param in zip(self.slow, params, strict=True):
                param.copy_(slow.lerp_(param, 0.5))


def trained(make: Any, in_list: bool, tested: bool) -> tuple[list[Tensor], list[Any]]:
    """The weights after five steps, with a range test before the last three."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = Lookahead(make(model.parameters()), in_list)

    def step(batch: float) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(torch.full((4, 3), float(batch))).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    for batch in range(2):
        step(batch)
    if tested:
        lr_range_test(step, [1.0, 2.0, 3.0], model, optimizer, iterations=30)
    for batch in range(3):
        step(batch)
    return [*model.parameters()], [optimizer.steps, optimizer.slow, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("kind", [oc.SGD, torch.optim.SGD, oc.Adam, torch.optim.Adam])
def test_a_wrapped_optimizer_goes_on_as_if_there_had_been_no_test(kind: Any, in_list: bool) -> None:
    options = {"momentum": 0.9} if kind.__name__ == "SGD" else {}

    def make(params: Any) -> torch.optim.Optimizer:
        return kind(params, lr=0.1, **options)  # type: ignore[no-any-return]

    with_test, without = trained(make, in_list, True), trained(make, in_list, False)
    torch.testing.assert_close(with_test, without, rtol=0, atol=0)


def test_an_option_in_the_place_of_the_rate_is_put_back() -> None:
    model = nn.Linear(1, 1)
    optimizer = oc.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    seen = []

    def step(batch: float) -> float:
        seen.append(optimizer.param_groups[0]["weight_decay"])
        return batch

    lr_range_test(
        step, [1.0], model, as_lr(optimizer, "weight_decay"), start_lr=1e-3, end_lr=1.0, iterations=4
    )
    assert seen == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
