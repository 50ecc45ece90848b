"""The LR range test: the curve, what it suggests, and that it leaves no trace."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import torchopt_course as oc
from torchopt_course import CyclicLR, lr_range_test
from torchopt_course.lr_scheduler import RangeTest
from torchopt_course.lr_scheduler.snapshot import put_back_afterwards

from ..helpers import run_python
from .twins import OPTIMIZERS, make_optimizer

NOTHING = nn.Module()


def a_curve(loss_at: Callable[[float], float], **options: Any) -> RangeTest:
    """A test of a "model" whose loss depends on nothing but the rate."""
    optimizer = make_optimizer()
    return lr_range_test(
        lambda batch: loss_at(optimizer.param_groups[0]["lr"]), [None], NOTHING, optimizer, **options
    )


# ---------------------------------------------------------------- the curve


def test_exponential_and_linear_rates() -> None:
    found = a_curve(lambda lr: 1.0, start_lr=1e-4, end_lr=1.0, iterations=5)
    assert found.lrs == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    found = a_curve(lambda lr: 1.0, start_lr=0.0, end_lr=1.0, iterations=5, spacing="linear")
    assert found.lrs == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert found.stopped == "after all 5 iterations"


@pytest.mark.parametrize("smoothing", [0.05, 0.4, 1.0])
def test_smoothing_is_a_weighted_mean_of_the_past(smoothing: float) -> None:
    losses = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    seen = iter(losses)
    found = lr_range_test(
        lambda batch: next(seen),
        [0],
        NOTHING,
        make_optimizer(),
        iterations=8,
        smoothing=smoothing,
        diverge_at=99,
    )
    assert found.losses == losses
    for i, smoothed in enumerate(found.smoothed):
        weights = [(1 - smoothing) ** (i - k) for k in range(i + 1)]
        assert smoothed == pytest.approx(np.average(losses[: i + 1], weights=weights))


def test_accuracy_is_recorded_if_given() -> None:
    optimizer = make_optimizer()
    found = lr_range_test(
        lambda batch: (torch.tensor(1.0, requires_grad=True), torch.tensor(0.25)),
        [0],
        NOTHING,
        optimizer,
        iterations=3,
    )
    assert found.accuracies == [0.25] * 3
    assert a_curve(lambda lr: 1.0, iterations=3).accuracies == []
    results = iter([1.0, (1.0, 0.5), 1.0])
    found = lr_range_test(lambda batch: next(results), [0], NOTHING, optimizer, iterations=3)
    assert found.accuracies == pytest.approx([math.nan, 0.5, math.nan], nan_ok=True)
    found.figure()


@pytest.mark.parametrize("sign", [0.0, -50.0])
def test_stops_where_the_loss_diverges(sign: float) -> None:
    """Below zero too, where 5 times the lowest would be lower still."""
    found = a_curve(lambda lr: 1.0 + sign + (1000.0 if lr > 0.1 else 0.0), smoothing=1.0)
    assert 0.1 < found.lrs[-1] < 0.11
    assert "5 times its lowest" in found.stopped
    assert len(found.losses) == len(found.lrs) < 300
    patient = a_curve(lambda lr: 1.0 + (3.0 if lr > 0.1 else 0.0), smoothing=1.0)
    assert len(patient.lrs) == 300


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_stops_where_the_loss_is_no_number(loss: float) -> None:
    found = a_curve(lambda lr: loss if lr > 0.1 else 1.0)
    assert found.lrs[-1] <= 0.1
    assert f"the loss was {loss}" in found.stopped
    nothing = a_curve(lambda lr: loss)
    assert (nothing.lrs, nothing.base_lr) == ([], None)
    nothing.figure()


# ---------------------------------------------------------------- what it suggests


@pytest.mark.parametrize("offset", [0.0, -10.0])
@pytest.mark.parametrize(
    ("smoothing", "iterations", "within"), [(1.0, 1000, 1.03), (0.05, 300, 1.5), (0.05, 1000, 1.15)]
)
def test_bounds_of_a_known_curve(offset: float, smoothing: float, iterations: int, within: float) -> None:
    """2 / (1 + lr / 0.01) has fallen by a tenth at 0.01 / 9 and by nine tenths at 0.09; then it explodes."""

    def loss_at(lr: float) -> float:
        return offset + (2 / (1 + lr / 0.01) if lr < 3 else 1000.0)

    found = a_curve(loss_at, smoothing=smoothing, iterations=iterations)
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert 1 / within < found.base_lr / (0.01 / 9) < within
    assert 1 / within < found.max_lr / 0.09 < within
    for number in (f"{found.base_lr:.3g}", f"{found.max_lr:.3g}", "tenth"):
        assert number in str(found)


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_fall(seed: int) -> None:
    noise = random.Random(seed)
    found = a_curve(lambda lr: noise.gauss(2.0, 0.5), iterations=150)
    assert found.base_lr is found.max_lr is None
    assert "no suggestion" in found.how


def test_too_few_iterations_to_say_anything() -> None:
    found = a_curve(lambda lr: -lr, iterations=10)
    assert found.base_lr is None
    assert "more than 20 iterations" in found.how


def test_finds_bounds_that_train_a_real_model() -> None:
    """A regression whose curvature is known: gradient descent diverges above 2 / largest eigenvalue."""
    torch.manual_seed(1)
    inputs = torch.randn(256, 8, dtype=torch.float64)
    targets = inputs @ torch.randn(8, 1, dtype=torch.float64)
    limit = 2 / torch.linalg.eigvalsh(2 * inputs.T @ inputs / 256).max().item()
    model = nn.Linear(8, 1, bias=False).double()
    optimizer = oc.SGD(model.parameters())

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    found = lr_range_test(step, [None], model, optimizer)
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert found.base_lr < found.max_lr < limit < found.lrs[-1]
    before = step(None)
    scheduler = CyclicLR(optimizer, found.base_lr, found.max_lr, 10)
    for _ in range(40):
        loss = step(None)
        scheduler.step()
    assert loss < 0.05 * before


# ---------------------------------------------------------------- no trace


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

            if ending is None:
                found = lr_range_test(
                    step, loader, model, optimizer, iterations=12, start_lr=1e-3, end_lr=0.5
                )
                assert found.losses[-1] != found.losses[0]
            else:
                with pytest.raises(ending, match="in the middle"):
                    lr_range_test(step, loader, model, optimizer, iterations=12)
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


@pytest.mark.parametrize("where", ["loader", "sampler"])
def test_random_numbers_of_a_loader_itself(where: str) -> None:
    data, generator = TensorDataset(torch.arange(50.0)), torch.Generator().manual_seed(4)
    own: dict[str, Any] = {"shuffle": True, "generator": generator}
    if where == "sampler":
        own = {"sampler": RandomSampler(data, generator=generator)}
    loader = DataLoader(data, batch_size=7, **own)
    state = generator.get_state()
    seen = []
    lr_range_test(
        lambda batch: float(len(seen.append(batch) or "x")), loader, NOTHING, make_optimizer(), iterations=20
    )  # type: ignore[func-returns-value]
    assert len(seen) == 20  # 8 batches in the loader, begun again twice
    assert torch.equal(generator.get_state(), state)


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


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"start_lr": 0.0}, "start_lr: 0.0"),
        ({"start_lr": -1.0, "spacing": "linear"}, "start_lr: -1.0"),
        ({"start_lr": math.nan}, "start_lr: nan"),
        ({"start_lr": 1.0, "end_lr": 1.0}, "end_lr: 1.0"),
        ({"end_lr": math.inf}, "end_lr: inf"),
        ({"iterations": 1}, "iterations: 1"),
        ({"iterations": 10.5}, "iterations: 10.5"),
        ({"spacing": "log"}, "'log'"),
        ({"smoothing": 0.0}, "smoothing: 0.0"),
        ({"smoothing": 1.5}, "smoothing: 1.5"),
        ({"diverge_at": 1.0}, "diverge_at: 1.0"),
    ],
)
def test_a_bad_option_is_named_before_the_first_step(change: dict[str, Any], named: str) -> None:
    def step(batch: Any) -> float:
        raise AssertionError

    with pytest.raises(ValueError, match=named):
        lr_range_test(step, [0], NOTHING, make_optimizer(), **change)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "ended after 0 batches$"),
        (iter([1, 2]), "ended after 2 batches: give something that can be begun"),
    ],
)
def test_batches_that_end(batches: Iterable[Any], said: str) -> None:
    optimizer = make_optimizer(lr=0.5)
    with pytest.raises(ValueError, match=said):
        lr_range_test(lambda batch: 1.0, batches, NOTHING, optimizer, iterations=5)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("result", [None, "low", torch.ones(2), (1.0, 0.5, 3.0), (1.0, "good")])
def test_a_step_that_returns_no_loss(result: Any) -> None:
    with pytest.raises(TypeError, match="must return the loss"):
        lr_range_test(lambda batch: result, [0], NOTHING, make_optimizer())


def test_other_things_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        lr_range_test(lambda batch: 1.0, [0], NOTHING, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state_dict and load_state_dict, got 3"):
        lr_range_test(lambda batch: 1.0, [0], NOTHING, make_optimizer(), also=[3])
    with pytest.raises(ValueError, match="run the model once"):
        lr_range_test(lambda batch: 1.0, [0], nn.LazyLinear(3), make_optimizer())


# ---------------------------------------------------------------- to look at


def test_figure_and_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    optimizer = make_optimizer()

    def step(batch: Any) -> tuple[float, float]:
        lr = optimizer.param_groups[0]["lr"]
        return 2 / (1 + lr / 0.01), 1 - 1 / (1 + lr / 0.01)

    found = lr_range_test(step, [0], NOTHING, optimizer)
    left, right = found.figure().axes
    assert left.get_xscale() == "log"
    curves = {line.get_label(): line.get_ydata() for line in left.lines}
    assert list(curves["loss"]) == found.losses
    assert list(curves["smoothed"]) == found.smoothed
    assert list(right.lines[0].get_ydata()) == found.accuracies
    (band,) = left.patches
    assert band.get_x() == found.base_lr
    assert band.get_x() + band.get_width() == pytest.approx(found.max_lr)
    assert a_curve(lambda lr: 1.0, spacing="linear").figure().axes[0].get_xscale() == "linear"

    with SummaryWriter(str(tmp_path)) as writer:
        found.write(writer, "range")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    for tag, values in {
        "range/learning_rate": found.lrs,
        "range/loss": found.losses,
        "range/smoothed_loss": found.smoothed,
        "range/accuracy": found.accuracies,
    }.items():
        points = events.Scalars(tag)
        assert [point.step for point in points] == list(range(300))
        assert [point.value for point in points] == pytest.approx(values, rel=1e-6)
    assert events.Tags()["images"] == ["range"]


def test_matplotlib_and_tensorboard_come_on_first_use() -> None:
    code = """
import sys, torchopt_course as oc, torch
p = torch.nn.Parameter(torch.ones(1)); o = torch.optim.SGD([p])
oc.lr_range_test(lambda b: 1.0, [0], torch.nn.Module(), o, iterations=2)
oc.preview_schedule(lambda o: oc.CyclicLR(o, 0.1, 1.0), 3)
print(*{m.split('.')[0] for m in sys.modules} & {'matplotlib', 'tensorboard', 'sklearn'})
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""
