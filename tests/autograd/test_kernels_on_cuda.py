# ruff: noqa: E501
"""Functions for which torch has other kernels on a GPU than on the CPU, or other ways to them.

Values and gradients beside torch's, with the same random numbers. ``JUDGE_DEVICE=cpu`` runs it on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchopt_course import autograd as ag

from .on_device import DEVICE, DOUBLE, HALVES, compare, numbers, on_device, whole

pytestmark = on_device


def classes(*shape: int) -> Tensor:
    return whole(4, *shape)


def ctc(device: str, dtype: torch.dtype, lengths: Any = None) -> Callable[[Any], Any]:
    """With int32 on the CPU torch takes cuDNN's kernel."""
    inputs, outputs = lengths or ((6, 6, 5), (3, 2, 2))

    def program(x: Any) -> Any:
        targets = torch.tensor([1, 2, 2, 3, 1, 1, 3], dtype=dtype, device=device)
        return F.ctc_loss(x.log_softmax(-1), targets, inputs, outputs)

    return program


def packed(layer: nn.Module) -> Callable[[Any], Any]:
    def program(x: Any) -> Any:
        rows = nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor([4, 6, 2]), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(layer(rows)[0], batch_first=True)[0]

    return program


def of(layer: nn.Module) -> Any:
    torch.manual_seed(4)
    for p in layer.parameters():
        p.data.normal_()
    return layer.to(DEVICE, DOUBLE)


picture, sequence = (3, 4, 6, 6), (3, 6, 4)
KERNELS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "instance_norm": (lambda x: F.instance_norm(x, weight=x[0, :, 0, 0], bias=x[0, :, 0, 1]), picture),
    "instance_norm, running": (
        lambda x: F.instance_norm(x, torch.zeros_like(x[0, :, 0, 0]), torch.ones_like(x[0, :, 0, 0])), picture
    ),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, x[0, :, 0, 0], x[0, :, 0, 1], True), picture),
    "batch_norm, evaluated": (
        lambda x: F.batch_norm(x, numbers(4), numbers(4).abs(), x[0, :, 0, 0], x[0, :, 0, 1]), picture
    ),
    "batch_norm, expanded gradient": (
        lambda x: F.batch_norm(x, None, None, training=True).sum((0, 2, 3)).exp(), picture
    ),
    "batch_norm, channels last": (
        lambda x: F.batch_norm(x.contiguous(memory_format=torch.channels_last), None, None, training=True).transpose(0, 1),
        picture,
    ),
    "batch_norm, 2 dimensions": (lambda x: F.batch_norm(x, None, None, training=True), (7, 4)),
    "group_norm": (lambda x: F.group_norm(x, 2, x[0, :, 0, 0], x[0, :, 0, 1]), picture),
    "layer_norm": (lambda x: F.layer_norm(x, (6, 6), x[0, 0], x[0, 1]), picture),
    "layer_norm, expanded gradient": (lambda x: F.layer_norm(x, (6,)).sum((0, 1)).exp(), picture),
    "layer_norm, transposed gradient": (lambda x: F.layer_norm(x, (6,)).transpose(1, 2).exp(), picture),
    "layer_norm, transposed": (lambda x: F.layer_norm(x.transpose(1, 3), (4,), x[0, :, 0, 0]), picture),
    "rms_norm": (lambda x: F.rms_norm(x, (6,), x[0, 0, 0]), picture),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), picture),
    "softmax, transposed gradient": (lambda x: x.softmax(1).transpose(1, 3), picture),
    "log_softmax, expanded gradient": (lambda x: x.log_softmax(-1).sum((0, 1)), picture),
    "conv2d": (lambda x: F.conv2d(x, x[:2], x[0, 0, 0, :2]), picture),
    "conv2d, strided and dilated": (
        lambda x: F.conv2d(x, x[:, :2, :2, :3], None, (2, 1), (1, 2), (2, 1), 1 if x.shape[1] == 2 else 2)
        if x.shape[0] % 2 == 0 else F.conv2d(x, x[:2, :, :2, :3], None, (2, 1), (1, 2), (2, 1)),
        picture,
    ),
    "conv2d, depthwise": (lambda x: F.conv2d(x, x[0, :, None, :3, :3], groups=4, padding="same"), picture),
    "conv2d, expanded gradient": (lambda x: F.conv2d(x, x[:2, :, :3, :3]).sum((0, 2, 3)), picture),
    "conv2d, channels last": (
        lambda x: F.conv2d(x.contiguous(memory_format=torch.channels_last), x[:2, :, :3, :3]), picture
    ),
    "conv1d": (lambda x: F.conv1d(x, x[:2, :, :3], stride=2), sequence),
    "conv3d": (lambda x: F.conv3d(x[None], x[:2, :3, None, :2, :2].transpose(0, 1)[:2, :, :, :, :].expand(2, 2, 1, 2, 2)
                                  .repeat(1, 2, 1, 1, 1)[:, :3], padding=1), picture),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, x[0, :, None, :3, :3], stride=2, output_padding=1), picture),
    "conv_transpose2d, groups": (
        lambda x: F.conv_transpose2d(x, x[0, :, None, :3, :3], stride=2, padding=1, groups=4, dilation=2), picture
    ),
    "max_pool1d": (lambda x: F.max_pool1d(x, 2, 1), sequence),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), picture),
    "max_pool2d, channels last": (
        lambda x: F.max_pool2d(x.contiguous(memory_format=torch.channels_last), 2), picture
    ),
    "max_pool2d, expanded gradient": (lambda x: F.max_pool2d(x, 2).sum((2, 3)), picture),
    "max_pool3d": (lambda x: F.max_pool3d(x[None], 2, 1), picture),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), picture),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), picture),
    "avg_pool2d, channels last": (
        lambda x: F.avg_pool2d(x.contiguous(memory_format=torch.channels_last), 2).transpose(0, 1), picture
    ),
    "avg_pool3d": (lambda x: F.avg_pool3d(x[None], 2, 1), picture),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 5)), picture),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x[None], 2), picture),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (4, 5)), picture),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x[None], 2), picture),
    "lp_pool2d": (lambda x: F.lp_pool2d(x, 3, 2), picture),
    **{
        f"interpolate {mode}": (
            lambda x, mode=mode: F.interpolate(x, size=(9, 4), mode=mode), picture
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    },
    "interpolate, smoothed": (lambda x: F.interpolate(x, size=(3, 4), mode="bilinear", antialias=True), picture),
    "interpolate trilinear": (lambda x: F.interpolate(x[None], scale_factor=1.5, mode="trilinear"), picture),
    **{
        f"grid_sample {mode} {padding} {corners}": (
            lambda x, mode=mode, padding=padding, corners=corners: F.grid_sample(
                x, x[:, :2, :4, :5].permute(0, 2, 3, 1), mode, padding, corners
            ),
            picture,
        )
        for mode, padding in (("bilinear", "zeros"), ("nearest", "border"), ("bicubic", "reflection"))
        for corners in (True, False)
    },
    "affine_grid": (lambda x: F.affine_grid(x[:, 0, :2, :3], [3, 4, 5, 5], False), picture),
    "pad, reflected": (lambda x: F.pad(x, (2, 1, 3, 0), mode="reflect"), picture),
    "pad, replicated": (lambda x: F.pad(x, (2, 1, 3, 0), mode="replicate"), picture),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), picture),
    "unfold": (lambda x: F.unfold(x, 3, padding=1), picture),
    "cross_entropy": (lambda x: F.cross_entropy(x, classes(3)), (3, 4)),
    "cross_entropy, weighted": (
        lambda x: F.cross_entropy(x, classes(3), numbers(4).abs(), label_smoothing=0.1, ignore_index=1), (3, 4)
    ),
    "cross_entropy, pictures": (
        lambda x: F.cross_entropy(x, classes(3, 6, 6), numbers(4).abs(), ignore_index=2), picture
    ),
    "cross_entropy, probabilities": (lambda x: F.cross_entropy(x, numbers(3, 4).softmax(1)), (3, 4)),
    "nll_loss, pictures": (lambda x: F.nll_loss(x, classes(3, 6, 6), reduction="none"), picture),
    "nll_loss, one": (lambda x: F.nll_loss(x[0], classes(1)[0]), (3, 4)),
    "binary_cross_entropy": (lambda x: F.binary_cross_entropy(x.sigmoid(), x.detach().sin().abs()), picture),
    "bce_with_logits": (
        lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sin().abs(), pos_weight=numbers(6).abs()), picture
    ),
    "multi_margin_loss": (lambda x: F.multi_margin_loss(x, classes(3), weight=numbers(4).abs()), (3, 4)),
    "multilabel_margin_loss": (lambda x: F.multilabel_margin_loss(x, torch.tensor([[1, 3, -1, 0]] * 3, device=DEVICE)), (3, 4)),
    "ctc_loss": (ctc(DEVICE, torch.int64), (6, 3, 4)),
    "ctc_loss, targets on the CPU": (ctc("cpu", torch.int64), (6, 3, 4)),
    "ctc_loss, for cuDNN": (ctc("cpu", torch.int32, ((6, 6, 6), (3, 2, 2))), (6, 3, 4)),
    "ctc_loss, tensors of lengths": (
        ctc(DEVICE, torch.int64, (torch.tensor([6, 6, 5]), torch.tensor([3, 2, 2]))), (6, 3, 4)
    ),
    **{
        f"embedding_bag {mode} {dtype} {last}": (
            lambda x, mode=mode, dtype=dtype, last=last: F.embedding_bag(
                torch.tensor([0, 2, 2, 1, 0, 4], device=DEVICE, dtype=dtype), x,
                torch.tensor([0, 2, 2, 6] if last else [0, 2, 2], device=DEVICE, dtype=dtype),
                mode=mode, include_last_offset=last, padding_idx=1,
            ),
            (5, 4),
        )
        for mode in ("sum", "mean", "max")
        for dtype in (torch.int64, torch.int32)
        for last in (False, True)
    },
    "embedding": (lambda x: F.embedding(torch.tensor([[0, 2], [2, 1]], device=DEVICE), x, 1, scale_grad_by_freq=True), (5, 4)),
    "embedding, int32": (lambda x: F.embedding(torch.tensor([[0, 2], [2, 1]], device=DEVICE, dtype=torch.int32), x), (5, 4)),
    "lstm": (lambda x: of(nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True))(x), sequence),
    "lstm, projected": (lambda x: of(nn.LSTM(4, 5, 2, proj_size=3))(x), sequence),
    "gru": (lambda x: of(nn.GRU(4, 5, 2, bidirectional=True))(x), sequence),
    "rnn": (lambda x: of(nn.RNN(4, 5, nonlinearity="relu", bias=False))(x), sequence),
    "lstm, packed": (lambda x: packed(of(nn.LSTM(4, 5, bidirectional=True, batch_first=True)))(x), sequence),
    "gru, packed": (lambda x: packed(of(nn.GRU(4, 5, batch_first=True)))(x), sequence),
    "lstm_cell": (lambda x: of(nn.LSTMCell(4, 5))(x[0]), sequence),
    "gru_cell": (lambda x: of(nn.GRUCell(4, 5))(x[0]), sequence),
    "rnn_cell": (lambda x: of(nn.RNNCell(4, 5))(x[0]), sequence),
    "bilinear": (lambda x: of(nn.Bilinear(4, 4, 3))(x, x.sin()), sequence),
    "cdist": (lambda x: torch.cdist(x, x[:, 1:].cos()), sequence),
    "cdist, of 3": (lambda x: torch.cdist(x, x[:, 1:].cos(), p=3.0).transpose(1, 2), sequence),
    "pdist": (lambda x: F.pdist(x[0]), sequence),
    "addmm": (lambda x: torch.addmm(x[0], x[1], x[2, :4], beta=0.5), sequence),
    "baddbmm": (lambda x: torch.baddbmm(x, x, x[:, :4], alpha=2.0), sequence),
    "einsum": (lambda x: torch.einsum("abc,adc->bd", x, x.sin()), sequence),
    "inverse": (lambda x: torch.linalg.inv(x[0] @ x[0].mT + torch.eye(6, device=DEVICE, dtype=DOUBLE)), sequence),
    "solve": (lambda x: torch.linalg.solve(x[:, :4], x[:, 2:].mT), sequence),
    "solve, from the right": (lambda x: torch.linalg.solve(x[:, :4], x[:, 2:], left=False), sequence),
    "lstsq": (lambda x: torch.linalg.lstsq(x, x[:, :, :2].sin()).solution, sequence),
    "det": (lambda x: torch.linalg.det(x[:, :4]) + torch.linalg.slogdet(x[:, :4])[1], sequence),
    "cholesky": (lambda x: torch.linalg.cholesky(x.mT @ x), sequence),
    "qr": (lambda x: torch.linalg.qr(x)[0].abs(), sequence),
    "svdvals": (lambda x: torch.linalg.svdvals(x), sequence),
    "svd": (lambda x: torch.linalg.svd(x, full_matrices=False)[0].square(), sequence),
    "eigh": (lambda x: torch.linalg.eigh(x.mT @ x)[1].square(), sequence),
    "pinv": (lambda x: torch.linalg.pinv(x), sequence),
    "matrix_exp": (lambda x: torch.linalg.matrix_exp(x[:, :4]), sequence),
    "lu_factor": (lambda x: torch.linalg.lu_factor(x[:, :4])[0], sequence),
    "matrix_norm": (lambda x: torch.linalg.matrix_norm(x, "nuc"), sequence),
    "cumsum": (lambda x: x.cumsum(1), sequence),
    "cumprod": (lambda x: x.cumprod(1), sequence),
    "cummax": (lambda x: x.cummax(1)[0], sequence),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), sequence),
    "prod": (lambda x: x.prod(1), sequence),
    "sort": (lambda x: x.sort(1)[0], sequence),
    "topk": (lambda x: x.topk(2, 1)[0], sequence),
    "kthvalue": (lambda x: x.kthvalue(2, 1)[0], sequence),
    "median": (lambda x: x.median(1)[0] + x.nanmedian(), sequence),
    "mode": (lambda x: x.mode(1)[0], sequence),
    "quantile": (lambda x: x.quantile(0.3, 1), sequence),
    "max of equal": (lambda x: (x * 0).amax(1) + (x * 0).max() + (x * 0).max(1)[0], sequence),
    "index_put": (lambda x: x.index_put((classes(5) % 3,), x[0], accumulate=True), sequence),
    "index_add": (lambda x: x.index_add(0, classes(5) % 3, x[0].expand(5, 6, 4)), sequence),
    "scatter_add": (lambda x: x.scatter_add(1, classes(3, 6, 4), x.sin()), sequence),
    "scatter_reduce": (lambda x: x.scatter_reduce(1, classes(3, 6, 4), x.sin(), "mean"), sequence),
    "scatter_reduce, largest": (lambda x: x.scatter_reduce(1, classes(3, 6, 4), x.sin(), "amax"), sequence),
    "masked_select": (lambda x: x[x > 0], sequence),
    "segment_reduce": (lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([1, 2], device=DEVICE)), sequence),
    "fft": (lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * 2, dim=1), sequence),
    "stft": (lambda x: torch.stft(x.reshape(1, -1), 8, 2, window=torch.hann_window(8, device=DEVICE, dtype=DOUBLE), return_complex=True).abs().square(), sequence),
    "renorm": (lambda x: x.renorm(2, 0, 1.0), sequence),
    "weight_norm": (lambda x: torch._weight_norm(x, x[:, :1, :1].exp(), 0), sequence),
    "digamma": (lambda x: torch.lgamma(x.exp()) + torch.special.i0e(x) + torch.erfinv(x.tanh()), sequence),
    "zeta": (lambda x: torch.polygamma(1, x.exp()) + torch.special.ndtri(x.sigmoid()), sequence),
    "prelu": (lambda x: F.prelu(x, x[0, 0, :1]), sequence),
    "glu": (lambda x: F.glu(x, 1), sequence),
    "hardsigmoid": (lambda x: F.hardsigmoid(x) + F.logsigmoid(x) + F.mish(x) + F.softshrink(x), sequence),
    "trapezoid": (lambda x: torch.trapezoid(x, dim=1), sequence),
    "corrcoef": (lambda x: torch.corrcoef(x[0]), sequence),
    "roll": (lambda x: x.roll(1, 1).flip(0).rot90(), sequence),
    "cosine_similarity": (lambda x: torch.nn.functional.cosine_similarity(x, x.sin(), 1), sequence),
}  # fmt: skip
REFUSED = {"fft", "stft"}  # complex numbers on the way


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str):
    program, shape = KERNELS[name]
    x = numbers(*shape)
    try:
        y = program(x.clone().requires_grad_())
        (y[0] if isinstance(y, tuple) else y).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch: {error}")
    if name in REFUSED:
        with pytest.raises(NotImplementedError, match="no derivative is known"):
            program(ag.Variable(x))
        return
    compare(program, x, tolerance=1e-7)


HALF = ["batch_norm", "group_norm", "layer_norm", "rms_norm", "conv2d", "conv2d, depthwise", "max_pool2d", "avg_pool2d",
        "interpolate bilinear", "cross_entropy", "nll_loss, pictures", "bce_with_logits", "addmm", "embedding_bag mean torch.int64 False",
        "softmax, transposed gradient", "cumsum", "prod", "scatter_add", "glu", "hardsigmoid", "prelu"]  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", HALF)
def test_kernels_in_half_precision(name: str, dtype: torch.dtype):
    program, shape = KERNELS[name]
    x = numbers(*shape, dtype=dtype)
    try:
        program(x.clone().requires_grad_()).sum().backward()
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch: {error}")
    compare(program, x, tolerance=4e-2 if dtype == torch.bfloat16 else 6e-3)
