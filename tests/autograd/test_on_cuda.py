# ruff: noqa: E501
"""On a GPU as on the CPU: values and derivatives are torch's, on the devices where torch has them.

``JUDGE_DEVICE=cpu`` runs what does not need two devices on the CPU. See also ``JUDGE_DEVICE=cuda python -m
tests.autograd.judge``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import torchopt_course as oc
from torchopt_course import autograd as ag
from torchopt_course.testing import assert_gradients_agree

from .test_modules import assert_same_gradients, lenet

DEVICE = os.environ.get("JUDGE_DEVICE", "cuda")
HAS_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not HAS_GPU, reason="needs a GPU"),
]
two_devices = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU beside the CPU")
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def in_full_precision() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), sdpa_kernel(SDPBackend.MATH):
        yield


def numbers(*shape: int, dtype: torch.dtype = DOUBLE, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=DOUBLE).to(DEVICE, dtype)


def whole(high: int, *shape: int, seed: int = 2) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


# -- models --------------------------------------------------------------------------------------------------


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


# -- two devices ---------------------------------------------------------------------------------------------

MOVES: dict[str, Callable[[Any], Any]] = {
    "to": lambda x: x.to("cuda"),
    "to, in a dtype": lambda x: x.to("cuda", torch.float32, non_blocking=True),
    "to a tensor's": lambda x: x.to(torch.zeros(2, device="cuda")),
    "cuda": lambda x: x.cuda(),
    "cuda, by name": lambda x: x.cuda(device="cuda:0", non_blocking=True),
    "cuda, a number": lambda x: x.cuda(0),
    "type": lambda x: x.type("torch.cuda.FloatTensor"),
    "type_as": lambda x: x.type_as(torch.zeros(2, device="cuda")),
    "there and back": lambda x: (x.cuda() * 2).cpu(),
    "there and back, twice": lambda x: (x.to("cuda").sin().cpu() * x).to("cuda").double(),
    "copied into": lambda x: torch.zeros(2, 3, device="cuda", dtype=DOUBLE).copy_(x) * 3,
    "pinned": lambda x: x.pin_memory().to("cuda", non_blocking=True),
    "module": lambda x: nn.Linear(3, 2, dtype=DOUBLE, device="cuda").requires_grad_(False)(x.cuda()),
}


@two_devices
@pytest.mark.parametrize("block", [True, False], ids=["within record", "a variable"])
@pytest.mark.parametrize("name", MOVES)
def test_moves_between_devices(name: str, block: bool):
    start = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(2, 3)
    theirs = start.clone().requires_grad_()
    torch.manual_seed(0)
    other = MOVES[name](theirs)
    other.square().sum().backward()
    mine: Any = start.clone().requires_grad_() if block else ag.Variable(start)
    torch.manual_seed(0)
    if block:
        with ag.record():
            y = MOVES[name](mine)
            z = y.square().sum()
    else:
        y = MOVES[name](mine)
        z = y.square().sum()
    z.backward()
    assert (y.device, y.dtype) == (other.device, other.dtype)
    torch.testing.assert_close(y.detach(), other.detach())
    torch.testing.assert_close(mine.grad, theirs.grad)  # the device among it


@two_devices
def test_a_number_of_the_cpu_next_to_a_tensor_of_the_gpu():
    """Torch takes it, and its gradient is a number of the CPU again."""
    for program in (
        lambda s, x: s * x,
        lambda s, x: s + x,
        lambda s, x: (s.exp() + 1) * x,
        lambda s, x: torch.where(x > 0, s, x) * s,
        lambda s, x: x ** s.abs(),
        lambda s, x: (s * s + s).sin() * x.sum(),
    ):
        leaves = [torch.tensor(0.7, dtype=DOUBLE), numbers(3, 4).abs()]
        theirs = [x.clone().requires_grad_() for x in leaves]
        mine = [ag.Variable(x) for x in leaves]
        program(*theirs).sum().backward()
        program(*mine).sum().backward()
        for p, q in zip(mine, theirs, strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        _, tangent = ag.jvp(
            lambda s, x, f=program: f(s, x).sum(), tuple(leaves), tuple(torch.ones_like(x) for x in leaves)
        )
        slope = sum(q.grad.sum().item() for q in theirs)
        assert tangent.item() == pytest.approx(slope, rel=1e-9)


@two_devices
def test_devices_that_do_not_go_together_are_torchs_error():
    x, y = torch.ones(2, 2, dtype=DOUBLE), torch.ones(2, 2, dtype=DOUBLE, device="cuda")
    for program in (
        torch.add, torch.matmul, torch.atan2, F.mse_loss, F.linear, torch.cdist, F.kl_div,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: F.layer_norm(a, (2,), b[0]),
        lambda a, b: F.cross_entropy(a, b),
        lambda a, b: F.scaled_dot_product_attention(a, b, b),
    ):  # fmt: skip
        for a, b in ((x, y), (y, x)):
            with pytest.raises((RuntimeError, ValueError)) as theirs:
                program(a.clone().requires_grad_(), b)
            with pytest.raises((RuntimeError, ValueError)) as mine:
                program(ag.Variable(a), b)
            assert mine.type is theirs.type
            assert "device" in str(mine.value)
    v = ag.Variable(x)
    with pytest.raises(RuntimeError, match="expected device cpu but got cuda"):
        (v * 2).backward(y)
    (v.sum() * 2).backward(torch.ones((), dtype=DOUBLE, device="cuda"))
    torch.testing.assert_close(v.grad, 2 * x)


@two_devices
def test_a_pinned_batch():
    model, _, labels = made("mlp", torch.float32)
    batch = torch.randn(12, 8).pin_memory()
    assert_same_gradients(
        model, lambda m: F.cross_entropy(m(batch.to("cuda", non_blocking=True)), labels), 1e-4
    )


# -- ways to differentiate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_random_numbers(reentrant: bool):
    model, x, labels = made("mlp", DOUBLE)

    def loss(m: Any) -> Any:
        h = checkpoint(
            lambda a: F.dropout(m[1](m[0](a)), 0.5), x.clone().requires_grad_(), use_reentrant=reentrant
        )
        return F.cross_entropy(m[3](m[2](h)), labels)

    assert_same_gradients(model, loss, 1e-10)


def softly(x: Any, w: Any) -> Any:
    return (torch.softmax(x @ w, -1).log() * torch.tanh(x @ w)).sum() + (x**3).mean()


def test_forward_mode_and_higher_orders():
    x, w, t = numbers(3, 4), numbers(4, 4, seed=5), numbers(3, 4, seed=6)
    _, mine = ag.jvp(lambda a: softly(a, w), (x,), (t,))
    _, theirs = torch.func.jvp(lambda a: softly(a, w), (x,), (t,))
    torch.testing.assert_close(mine, theirs)
    hessian = torch.func.hessian(lambda a: softly(a, w))(x)
    torch.testing.assert_close(ag.hessian(lambda a: softly(a, w))(x), hessian)
    jacobian = torch.func.jacrev(lambda a: torch.tanh(a @ w))(x)
    torch.testing.assert_close(ag.jacrev(lambda a: torch.tanh(a @ w))(x), jacobian)
    torch.testing.assert_close(ag.jacfwd(lambda a: torch.tanh(a @ w))(x), jacobian)
    v = ag.Variable(x)
    (g,) = torch.autograd.grad(softly(v, w), v, create_graph=True)
    (gg,) = torch.autograd.grad((g * t).sum(), v, create_graph=True)
    torch.testing.assert_close(gg.detach(), torch.einsum("abcd,cd->ab", hessian, t))
    gg.square().sum().backward()
    assert v.grad.device == x.device


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


def test_finite_differences_agree():
    x, w = numbers(3, 4), numbers(4, 4, seed=5)
    slopes = ag.numerical.grad(lambda a: softly(a, w))(x)
    torch.testing.assert_close(slopes, ag.grad(lambda a: softly(a, w))(x), rtol=1e-6, atol=1e-8)
    assert_gradients_agree(softly, x, w)
    assert_gradients_agree(lambda a: F.layer_norm(a, (4,)).exp(), x.float())
    wrong = ag.primitive(x=lambda g, x: g * 3 * x)(_cube)
    with pytest.raises(AssertionError):
        assert_gradients_agree(wrong, x)


def _cube(x: Tensor) -> Tensor:
    return x * x * x


def test_in_place():
    def program(x: Any) -> Any:
        y = x * 1
        y[0] = 2 * y[1]
        y.add_(x).mul_(y.detach().clone()).clamp_(min=-1.5)
        y[:, 1:].sigmoid_()
        y = y * 1
        y.index_add_(0, torch.tensor([0, 0], device=x.device), x[:2].sin())
        y.masked_fill_(x > 1, 0.5)
        return (y * y).sum()

    x = numbers(3, 4)
    theirs, mine = x.clone().requires_grad_(), ag.Variable(x)
    program(theirs).backward()
    program(mine).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    y = mine.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match="in place"):
        z.backward()


def test_graphs_show_values():
    x = ag.Variable(torch.tensor([1.5, -2.0], device=DEVICE))
    loss = F.softplus(x * 3).sum()
    drawn = ag.graph(loss)
    loss.backward()
    text = drawn.text()
    assert "softplus" in text
    assert "softplus" in drawn.svg(graphviz=False)
    assert "softplus" in drawn.dot()
    written = ag.trace(lambda a, b: a * b + torch.sin(a), torch.tensor(2.0, device=DEVICE), 3.0)
    assert "sin" in str(written)


@two_devices
def test_memory_does_not_grow():
    model, x, labels = made("cnn", torch.float32)
    used = []
    for _ in range(4):
        model.zero_grad()
        with ag.record(model):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        del loss
        used.append(torch.cuda.memory_allocated())
    assert used[1] == used[-1]


@two_devices
def test_on_a_stream_of_its_own():
    model, x, labels = made("cnn", DOUBLE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert_same_gradients(model, lambda m: F.cross_entropy(m(x), labels), 1e-10)


@two_devices
def test_whole_step_in_a_cuda_graph():
    """Recorded once and replayed, as in torch's own notes on CUDA graphs."""
    model, x, labels = made("cnn", torch.float32)
    model.eval()
    twin = copy.deepcopy(model)

    def gradients() -> None:
        with ag.record(model):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            gradients()
    torch.cuda.current_stream().wait_stream(stream)
    model.zero_grad(set_to_none=True)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        gradients()
    x.copy_(numbers(12, 1, 28, 28, dtype=torch.float32, seed=9))
    captured.replay()
    F.cross_entropy(twin(x), labels).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)
