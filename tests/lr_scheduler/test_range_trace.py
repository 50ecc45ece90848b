"""The LR range test leaves no trace in model, optimizer, scheduler and generators."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import torchopt_course as oc
from torchopt_course import CyclicLR, lr_range_test
from torchopt_course.lr_scheduler.snapshot import put_back_afterwards

from .ranges import NOTHING
from .twins import OPTIMIZERS, make_optimizer


class Net(nn.Module):
    """Buffers that change, random dropout, a frozen and a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(6, 6)
        self.last.weight.requires_grad_(False)
        self.shared = nn.Linear(4, 6)
        self.shared.weight = self.first.weight
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.norm.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1  # another tensor each time
        return self.last(self.drop(self.norm(self.first(x)))) + self.shared(x)


def the_setting(kind: Any, **options: Any) -> tuple[Net, Optimizer, DataLoader[Any]]:
    torch.manual_seed(3)
    model = Net()
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": trainable[:2], "lr": 0.02}, {"params": trainable[2:], "lr": 0.01}]
    data = TensorDataset(torch.randn(20, 4), torch.randint(0, 6, (20,)))
    return model, kind(groups, **options), DataLoader(data, batch_size=8, shuffle=True)


def train_on(model: nn.Module, optimizer: Optimizer, batch: Any) -> torch.Tensor:
    inputs, targets = batch

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs + 0.1 * torch.randn_like(inputs)), targets)
        loss.backward()
        return loss

    return optimizer.step(closure)  # type: ignore[arg-type, return-value]


def everything(model: nn.Module, optimizer: Optimizer) -> list[Any]:
    """All that training depends on, to be compared bit by bit."""
    tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    for state in optimizer.state.values():
        for value in state.values():
            tensors += value if isinstance(value, list) else [value]
    bits = [
        t
        if not isinstance(t, torch.Tensor)
        else (t.dtype, t.detach().clone().view(torch.uint8).tolist() if t.dim() else t.item())
        for t in tensors
    ]
    names = [[*state] for state in optimizer.state.values()]
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    flags = [m.training for m in model.modules()] + [p.requires_grad for p in model.parameters()]
    return [bits, names, groups, flags, torch.get_rng_state().tolist(), random.getstate(), np.random.rand()]


ALL_OF_12 = "after all 12 iterations"
KINDS = {**OPTIMIZERS, "Momentum": oc.Momentum, "Adagrad": oc.Adagrad, "torch.AdamW": torch.optim.AdamW}


@pytest.mark.parametrize("name", [*KINDS])
@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_training_goes_on_as_if_there_had_been_no_test(name: str, steps_before: int, ending: Any) -> None:
    def run(with_test: bool) -> list[Any]:
        model, optimizer, loader = the_setting(KINDS[name])
        random.seed(0)
        np.random.seed(0)
        for batch in [next(iter(loader)) for _ in range(steps_before)]:
            train_on(model, optimizer, batch)
        if with_test:
            count = 0

            def step(batch: Any) -> torch.Tensor:
                nonlocal count
                count += 1
                random.random()
                np.random.rand()
                model.train()
                model.first.bias.requires_grad_(count % 2 == 0)
                loss = train_on(model, optimizer, batch)
                if ending is not None and count == 9:
                    raise ending("in the middle")
                return loss

            if ending is RuntimeError:
                with pytest.raises(ending, match="in the middle"):
                    lr_range_test(step, loader, model, optimizer, iterations=12)
            else:
                found = lr_range_test(
                    step, loader, model, optimizer, iterations=12, start_lr=1e-3, end_lr=0.5
                )
                assert found.losses[-1] != found.losses[0]
                assert len(found.losses) == (8 if ending else 12)
                assert found.stopped == ("after 8 of 12 iterations, by Ctrl-C" if ending else ALL_OF_12)
            assert count >= 9
        seen = [everything(model, optimizer)]
        for batch in loader:  # shuffled by torch's random numbers
            seen.append(train_on(model, optimizer, batch).item())
        return [*seen, everything(model, optimizer)]

    assert run(with_test=True) == run(with_test=False)


def test_lbfgs_keeps_lists_of_tensors() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=4)
    batch = (torch.randn(8, 3), torch.zeros(8, dtype=torch.long))
    for _ in range(2):
        train_on(model, optimizer, batch)
    np.random.seed(0)
    before = everything(model, optimizer)
    np.random.seed(0)
    lr_range_test(
        lambda b: train_on(model, optimizer, b), [batch], model, optimizer, iterations=5, end_lr=0.1
    )
    assert everything(model, optimizer) == before


def test_tensors_keep_their_identity_and_memory() -> None:
    model, optimizer, loader = the_setting(oc.Adam)
    train_on(model, optimizer, next(iter(loader)))
    weight = model.first.weight
    held = {
        "calls": model.calls,
        "grad": weight.grad,
        "exp_avg": optimizer.state[weight]["exp_avg"],
        "group": optimizer.param_groups[0],
    }
    memory, content = weight.data_ptr(), weight.detach().clone()

    def step(batch: Any) -> torch.Tensor:
        weight.data = weight.data * 2
        optimizer.state[weight]["exp_avg"] = torch.ones_like(weight)
        optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=7.0)
        return train_on(model, optimizer, batch)

    lr_range_test(step, loader, model, optimizer, iterations=3, end_lr=1e-3)
    assert model.calls is held["calls"]
    assert weight.grad is held["grad"]
    assert optimizer.state[weight]["exp_avg"] is held["exp_avg"]
    assert optimizer.param_groups[0] is held["group"]
    assert weight.data_ptr() == memory
    assert torch.equal(weight, content)


def test_a_gradient_that_was_there_stays_and_one_that_was_not_goes() -> None:
    model = nn.Linear(2, 2)
    optimizer = oc.SGD(model.parameters())
    model.weight.grad = torch.full((2, 2), 5.0)
    batch = (torch.ones(3, 2), torch.zeros(3, dtype=torch.long))

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)  # writes into the gradient that is there
        return train_on(model, optimizer, batch)

    lr_range_test(step, [batch], model, optimizer, iterations=2)
    assert torch.equal(model.weight.grad, torch.full((2, 2), 5.0))
    assert model.bias.grad is None


def test_the_extra_state_of_a_module() -> None:
    class Scaled(nn.Linear):
        history: ClassVar[list[float]]

        def get_extra_state(self) -> Any:
            return self.history

        def set_extra_state(self, state: Any) -> None:
            self.history = list(state)

    model = nn.Sequential(Scaled(1, 1))
    model[0].history = [1.0]
    lr_range_test(
        lambda b: float(model[0].history.append(2.0) or 1), [0], model, make_optimizer(), iterations=3
    )
    assert model[0].history == [1.0]


def test_tensor_rates_and_ratios_of_groups() -> None:
    rates = torch.tensor(0.5), torch.tensor(0.125)
    optimizer = torch.optim.Adam(
        [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates], capturable=False
    )
    seen: list[list[float]] = []

    def step(batch: Any) -> float:
        seen.append([group["lr"].item() for group in optimizer.param_groups])
        return 1.0

    lr_range_test(step, [0], NOTHING, optimizer, start_lr=0.25, end_lr=1.0, iterations=3)
    assert seen == [[0.25, 0.0625], [0.5, 0.125], [1.0, 0.25]]
    assert [group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True)] == [
        True
    ] * 2
    assert [rate.item() for rate in rates] == [0.5, 0.125]


def test_rates_of_zero_are_raised_too() -> None:
    optimizer = make_optimizer(lr=0.0)
    seen = []
    lr_range_test(
        lambda b: seen.append(optimizer.param_groups[0]["lr"]) or 1.0, [0], NOTHING, optimizer, iterations=2
    )  # type: ignore[func-returns-value]
    assert seen == pytest.approx([1e-7, 10.0])
    assert optimizer.param_groups[0]["lr"] == 0.0


@pytest.mark.parametrize("kind", [oc.SGD, torch.optim.SGD])
def test_gradient_scaler_scheduler_and_average_are_put_back(kind: Any) -> None:
    model, optimizer, loader = the_setting(kind, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    scheduler = CyclicLR(optimizer, 0.01, 0.02, 3)
    average = torch.optim.swa_utils.AveragedModel(model)

    def step(batch: Any) -> torch.Tensor:
        inputs, targets = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        average.update_parameters(model)
        return loss

    step(next(iter(loader)))
    before = deepcopy((scaler.state_dict(), scheduler.state_dict(), optimizer.param_groups))
    weights = deepcopy(average.state_dict())
    lr_range_test(step, loader, model, optimizer, iterations=6, also=[scaler, scheduler, average])
    assert scaler.get_scale() == 4.0
    assert before[:2] == (scaler.state_dict(), scheduler.state_dict())
    assert [g["momentum"] for g in optimizer.param_groups] == [g["momentum"] for g in before[2]]
    for name, value in average.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_every_part_is_put_back_even_if_one_cannot_be() -> None:
    class Stubborn:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise OSError("no")

    model = nn.Linear(2, 2)
    before, random_state = model.weight.detach().clone(), torch.get_rng_state()
    with pytest.raises(OSError, match="no"), put_back_afterwards(model, make_optimizer(), [Stubborn()]):
        model.weight.data.mul_(torch.rand(()))
    assert torch.equal(model.weight, before)
    assert torch.equal(torch.get_rng_state(), random_state)
