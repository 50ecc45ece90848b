# ruff: noqa: E501
"""Modules on a GPU as on the CPU: gradients and training are torch's.

``JUDGE_DEVICE=cpu`` runs it on the CPU. See also ``JUDGE_DEVICE=cuda python -m tests.autograd.judge``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchopt_course as oc
from torchopt_course import autograd as ag

from .module_gradients import assert_same_gradients, lenet
from .on_device import DEVICE, DOUBLE, numbers, on_device, whole

pytestmark = [*on_device, pytest.mark.usefixtures("attention_by_formula")]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


class Transformer(nn.Module):
    """Of words, with dropout in the layers and in the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.head(self.layers(self.words(x), mask=mask, is_causal=True).mean(1))


class Recurrent(nn.Module):
    """Both directions, two layers, dropout between: cuDNN's kernels for torch, steps for us."""

    def __init__(self, kind: type[nn.RNNBase], dropout: float = 0.0) -> None:
        super().__init__()
        self.steps = kind(8, 6, 2, batch_first=True, bidirectional=True, dropout=dropout)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.steps(x.unflatten(1, (2, 4)).repeat(1, 1, 2))[0].mean(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.dtype], Tensor]]] = {
    "mlp": (mlp, lambda dtype: numbers(12, 8, dtype=dtype)),
    "cnn": (
        lambda: nn.Sequential(lenet(), nn.Linear(10, 4)),
        lambda dtype: numbers(12, 1, 28, 28, dtype=dtype),
    ),
    "channels last": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=4),
            nn.GroupNorm(2, 8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ).to(memory_format=torch.channels_last),
        lambda dtype: numbers(12, 3, 9, 9, dtype=dtype).contiguous(memory_format=torch.channels_last),
    ),
    "transformer": (Transformer, lambda dtype: whole(11, 12, 5)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda dtype: numbers(12, 8, dtype=dtype)),
    "gru": (lambda: Recurrent(nn.GRU), lambda dtype: numbers(12, 8, dtype=dtype)),
    "rnn": (lambda: Recurrent(nn.RNN), lambda dtype: numbers(12, 8, dtype=dtype)),
}  # fmt: skip
LABELS = [0, 3, 1, 2, 2, 0, 1, 3, 3, 2, 1, 0]


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(3)
    model, inputs = MODELS[name]
    return model().to(DEVICE, dtype), inputs(dtype), torch.tensor(LABELS, device=DEVICE)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_torchs(name: str, dtype: torch.dtype):
    model, x, labels = made(name, dtype)
    assert_same_gradients(model, lambda m: F.cross_entropy(m(x), labels), 1e-10 if dtype == DOUBLE else 1e-4)


@pytest.mark.filterwarnings("default::RuntimeWarning")  # where numba is missing
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_trains_with_our_optimizers_like_torch(name: str, optimizer: str):
    mine, x, labels = made(name, DOUBLE)
    twin = copy.deepcopy(mine)
    ours = getattr(oc, optimizer)(mine.parameters(), lr=1e-3)
    theirs = getattr(torch.optim, optimizer)(twin.parameters(), lr=1e-3)
    for step in range(5):
        torch.manual_seed(step)
        with ag.record(mine):
            loss = F.cross_entropy(mine(x), labels)
        ours.zero_grad()
        loss.backward()
        ours.step()
        torch.manual_seed(step)
        other = F.cross_entropy(twin(x), labels)
        theirs.zero_grad()
        other.backward()
        theirs.step()
        torch.testing.assert_close(loss.detach(), other.detach(), rtol=1e-7, atol=1e-9)
    for p, q in zip(mine.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_autocast_is_torchs(name: str, dtype: torch.dtype):
    if (name, DEVICE, dtype) == ("lstm", "cpu", torch.float16):
        pytest.skip("torch has no such kernel on the CPU")
    model, x, labels = made(name, torch.float32)

    def loss(m: nn.Module) -> Any:
        with torch.autocast(torch.device(DEVICE).type, dtype=dtype):
            return F.cross_entropy(m(x), labels)

    assert_same_gradients(model, loss, 6e-2 if dtype == torch.bfloat16 else 1e-2)


def test_autocast_next_to_a_number_of_the_cpu():
    """What decides is the tensor on the GPU, wherever it stands."""
    weight = numbers(4, 4, dtype=torch.float32)
    scale = torch.tensor(2.0)

    def dtypes(x: Any) -> list[torch.dtype]:
        with torch.autocast(torch.device(DEVICE).type, dtype=torch.bfloat16):
            y = torch.where(torch.tensor(True), scale * x, x) @ weight
            return [y.dtype, torch.softmax(y, -1).dtype, torch.pow(scale, y).dtype, (scale * y).dtype]

    x = numbers(4, 4, dtype=torch.float32)
    assert dtypes(ag.Variable(x)) == dtypes(x.clone().requires_grad_())


def test_trains_with_a_grad_scaler_like_torch():
    kind = torch.device(DEVICE).type
    dtype = torch.float16 if kind == "cuda" else torch.bfloat16
    mine, x, labels = made("mlp", torch.float32)
    twin = copy.deepcopy(mine)
    results = []
    for model, block in ((mine, ag.record), (twin, None)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(kind, init_scale=2.0**60, growth_interval=2)  # overflows at first
        scales, losses = [], []
        for step in range(60):
            torch.manual_seed(step)
            if block is None:
                with torch.autocast(kind, dtype=dtype):
                    loss = F.cross_entropy(model(x), labels)
            else:
                with block(model), torch.autocast(kind, dtype=dtype):
                    loss = F.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
            losses.append(loss.item())
        results.append((scales, losses))
    assert results[0][0][:20] == results[1][0][:20]
    assert results[0][1] == pytest.approx(results[1][1], rel=0.05)
    assert results[0][1][-1] < results[0][1][0]


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_forward_mode_of_recurrent_modules(name: str):
    model, x, labels = made(name, DOUBLE)
    values = {key: p.detach() for key, p in model.named_parameters()}
    directions = {key: numbers(*p.shape, seed=7) for key, p in values.items()}
    _, tangent = ag.jvp(
        lambda w: F.cross_entropy(ag.functional_call(model, w, (x,)), labels), (values,), (directions,)
    )
    F.cross_entropy(model(x), labels).backward()
    slope = sum((p.grad * directions[key]).sum() for key, p in model.named_parameters())
    torch.testing.assert_close(tangent.detach(), slope)
