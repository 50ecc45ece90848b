# ruff: noqa: E501
"""Unmodified modules: the same gradients as torch, and the same training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchopt_course
from torchopt_course import autograd

from .module_gradients import assert_same_gradients, lenet


def test_lenet_trains_like_torch():
    torch.manual_seed(0)
    mine = lenet().double()
    twin = copy.deepcopy(mine)
    pictures, labels = torch.randn(32, 1, 28, 28, dtype=torch.float64), torch.randint(0, 10, (32,))
    ours, theirs = (torchopt_course.Adam(m.parameters(), lr=1e-3) for m in (mine, twin))
    for step in range(100):
        rows = torch.arange(8) + 8 * (step % 4)
        for model, optimizer in ((mine, ours), (twin, theirs)):
            torch.manual_seed(step)  # the dropout masks
            optimizer.zero_grad()
            if model is mine:
                with autograd.record(model):
                    loss = F.cross_entropy(model(pictures[rows]), labels[rows])
            else:
                loss = F.cross_entropy(model(pictures[rows]), labels[rows])
            loss.backward()
            optimizer.step()
    assert loss.item() < 1.5
    for (name, p), q in zip(mine.state_dict().items(), twin.state_dict().values(), strict=True):
        assert (p - q).abs().max().item() <= 1e-9, name


def test_resnet18():
    from torchvision.models import resnet18

    x, y = torch.randn(2, 3, 32, 32), torch.tensor([1, 3])
    assert_same_gradients(resnet18(num_classes=5), lambda model: F.cross_entropy(model(x), y), 1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masks", [{}, {"mask": nn.Transformer.generate_square_subsequent_mask(5)},
                                   {"src_key_padding_mask": torch.tensor([[False] * 4 + [True]] * 3)}])  # fmt: skip
def test_transformer_encoder(training: bool, masks: dict[str, Tensor]):
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1 if training else 0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    x = torch.randn(3, 5, 16)
    assert_same_gradients(model, lambda model: model(x, **masks)[:, :4].square().mean(), 1e-4)


class Odd(nn.Module):
    """Embedding, shared weights, parameters in containers, a frozen one, an unused one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=0)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(4)), nn.Parameter(torch.randn(4))])
        self.more = nn.ParameterDict({"shift": nn.Parameter(torch.randn(4))})
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.unused = nn.Parameter(torch.randn(2))
        self.listed = [self.scales[1]]
        self.norm = nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.GroupNorm(2, 4))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed(tokens).mean(1) * self.scales[0] * self.listed[0] + self.more["shift"]
        return self.out(self.normed(self.norm(x)) * self.frozen)


def test_odd_parameters():
    tokens = torch.randint(0, 7, (5, 3))
    model = Odd()
    before = dict(model.named_parameters())
    assert_same_gradients(model, lambda model: F.cross_entropy(model(tokens), tokens[:, 0]), 1e-5)
    assert model.frozen.grad is None
    assert model.unused.grad is None
    assert dict(model.named_parameters()) == before
    assert "weight" not in model.embed.__dict__


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "efficientnet_b0", "squeezenet1_0"])
def test_other_networks_of_torchvision(name: str):
    import torchvision.models

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=3)
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    with autograd.record(model):
        F.cross_entropy(model(x), y).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_gradients_accumulate_in_the_parameters():
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    for _ in range(2):
        with autograd.record(model):
            loss = model(x).sum()
        loss.backward()
    torch.testing.assert_close(model.bias.grad, torch.full((2,), 8.0))
    with autograd.record(model), torch.no_grad():
        assert type(model(x)) is Tensor


def test_the_module_is_itself_again_after_an_error():
    model = nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 2))
    with pytest.raises(NotImplementedError, match=r"torch\.fft\.fft"), autograd.record(model):
        torch.fft.fft(model(torch.randn(4, 3))[0])
    assert isinstance(model[0].weight, nn.Parameter)
    assert all(isinstance(w, nn.Parameter) for w in model[1]._flat_weights)
    with (
        pytest.raises(TypeError, match=r"record\(\) takes torch.nn modules, not list"),
        autograd.record([model]),
    ):
        pass


def test_parameters_are_called_as_torch_calls_them():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict(
                {"embedding": nn.Embedding(5, 3), "mixer": nn.Sequential(nn.Linear(3, 3))}
            )
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.body["embedding"].weight
            self.again, self.nothing = self.body["mixer"], None

    model = Tied()
    with autograd.record(model):
        weights = (model.head.weight, model.again[0].weight, model.again[0].bias)
        names = [(weight * 1).node.parents[0].name for weight in weights]
    assert names == [name for name, _ in model.named_parameters()]


def test_a_record_can_be_entered_again_and_within_itself():
    weight = nn.Parameter(torch.ones(2))
    recording = autograd.record(nn.Linear(1, 1))
    for _ in range(2):
        with recording:
            with recording:
                assert isinstance(weight * 2, autograd.Variable)
            assert isinstance(weight * 2, autograd.Variable)
        assert type(weight * 2) is Tensor


def test_an_unchanged_backward_after_the_optimizer_moved_a_weight_is_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    with autograd.record(model):
        loss = model(torch.randn(2, 3)).sum()
    with torch.no_grad():
        model[1].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="linear needs its argument 'weight'"):
        loss.backward()


def test_transforms_of_a_module():
    model, x, y = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(),
        torch.randn(5, 3).double(),
        0.3,
    )
    weights = dict(model.named_parameters())

    def loss(call: Any, w: Any) -> Any:
        return (call(model, w, (x,)) - y).square().mean()

    mine = autograd.grad(lambda w: loss(autograd.functional_call, w))(weights)
    theirs = torch.func.grad(lambda w: loss(torch.func.functional_call, w))(
        {k: v.detach() for k, v in weights.items()}
    )
    for name, g in theirs.items():
        torch.testing.assert_close(mine[name], g)
    with pytest.raises(KeyError, match="no parameter or buffer 'nope'"):
        autograd.functional_call(model, {"nope": x}, (x,))


def test_readable_rules_agree_with_the_fast_ones():
    x, w, b = (torch.randn(*s, dtype=torch.float64) for s in ((2, 4, 7, 6), (6, 2, 3, 2), (6,)))
    pairs = [
        (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2),
         lambda x, w, b: autograd.conv2d_by_unfold(x, w, b, (2, 1), (1, 0), (1, 2), 2)),
        (lambda x, w, b: F.max_pool2d(x, 3, 2, 1), lambda x, w, b: autograd.max_pool2d_by_unfold(x, 3, 2, 1)),
        (lambda x, w, b: F.avg_pool2d(x, (3, 2), 2, 1), lambda x, w, b: autograd.avg_pool2d_by_unfold(x, (3, 2), 2, 1)),
    ]  # fmt: skip
    for fast, readable in pairs:
        y, pull = autograd.vjp(fast, x, w, b)
        z, pull_readably = autograd.vjp(readable, x, w, b)
        g = torch.randn_like(y)
        torch.testing.assert_close(y, z)
        for mine, oracle in zip(pull(g), pull_readably(g), strict=True):
            torch.testing.assert_close(mine, oracle)


def test_batch_norm_with_a_strided_weight_is_right_where_torch_is_not():
    # torch 2.14.1: the backward kernel on the CPU reads a weight with gaps as if it had none.
    x, w, g = torch.randn(5, 3).double(), torch.randn(3, 2).double()[:, 0], torch.randn(5, 3).double()
    f = lambda x: (F.batch_norm(x, None, None, w, training=True) * g).sum()  # noqa: E731
    torch.testing.assert_close(autograd.grad(f)(x), autograd.numerical.grad(f)(x), rtol=1e-6, atol=1e-8)


class OfOneDimension(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("made", "name", "dim"),
    [*((lambda: nn.Linear(3, 4), "weight", dim) for dim in (None, 0, 1, -2)), (OfOneDimension, "scale", 0)],
)
def test_length_and_direction_apart(made: Callable[[], nn.Module], name: str, dim: int | None):
    torch.manual_seed(0)
    model, x = nn.utils.parametrizations.weight_norm(made(), name, dim), torch.randn(5, 3)
    assert_same_gradients(model, lambda model: model(x).square().mean(), 1e-5)
