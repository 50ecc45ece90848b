"""Weights and other arguments beside the first have torch's gradient, or its refusal: none is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
W = [0.3, 0.5, 0.9]
CLASSES = torch.tensor([0, 1, 2, 0])
ONES = torch.ones(3, dtype=torch.float64)

LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "nll_loss": lambda x, w: F.nll_loss(x, CLASSES, w),
    "NLLLoss": lambda x, w: nn.NLLLoss(weight=w)(x, CLASSES),
    "cross_entropy": lambda x, w: F.cross_entropy(x, CLASSES, w),
    "cross_entropy 2d": lambda x, w: F.cross_entropy(x.view(1, 3, 4), CLASSES.view(1, 4), w),
    "cross_entropy smoothed": lambda x, w: F.cross_entropy(x, CLASSES, w, label_smoothing=0.1),
    "cross_entropy of probabilities": lambda x, w: F.cross_entropy(x, Y, w),
    "binary_cross_entropy": lambda x, w: F.binary_cross_entropy(x.sigmoid(), Y, w),
    "with_logits": lambda x, w: F.binary_cross_entropy_with_logits(x, Y, w),
    "with_logits pos_weight": lambda x, w: F.binary_cross_entropy_with_logits(x, Y, pos_weight=w),
    "multi_margin_loss": lambda x, w: F.multi_margin_loss(x, CLASSES, weight=w),
    "multilabel_soft_margin_loss": lambda x, w: F.multilabel_soft_margin_loss(x, Y.round(), w),
    "soft_margin_loss target": lambda x, w: F.soft_margin_loss(x, w.expand(4, 3)),
    "mse_loss": lambda x, w: F.mse_loss(x, Y, weight=w.expand(4, 3)),
    "huber_loss": lambda x, w: F.huber_loss(x, Y, weight=w.expand(4, 3)),
    **{f"l1_loss {how}": lambda x, w, how=how: F.l1_loss(x, Y, weight=w.expand(4, 3), reduction=how)
       for how in ("mean", "sum", "none")},
    "l1_loss of a constant weight": lambda x, w: F.l1_loss(x * w, Y, weight=Y),
    "l1_loss of another size": lambda x, w: F.l1_loss(x, Y, weight=w),
    "smooth_l1_loss": lambda x, w: F.smooth_l1_loss(x, w.expand(4, 3), beta=0.0),
    "batch_norm mean": lambda x, w: F.batch_norm(x, w, ONES),
    "batch_norm variance": lambda x, w: F.batch_norm(x, ONES, w, ONES, ONES),
    "instance_norm mean": lambda x, w: F.instance_norm(x.view(1, 3, 4), w, ONES, use_input_stats=False),
    "pinv": lambda x, w: torch.linalg.pinv(x, rtol=w[0] * 1e-9),
    "fractional_max_pool2d": lambda x, w: F.fractional_max_pool2d(
        x.view(1, 1, 4, 3), 2, output_size=2, _random_samples=w[:2].view(1, 1, 2)
    ),
}  # fmt: skip


# A constant of no dimensions is a number to torch.
ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "celu": F.celu,
    "softplus": lambda x, a: F.softplus(x, beta=a, threshold=a * 3),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x, a: F.threshold(x, a, a),
    "hardtanh": lambda x, a: F.hardtanh(x, -a, a),
    "label smoothing": lambda x, a: F.cross_entropy(x, CLASSES, label_smoothing=a),
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_constant_tensor_is_a_number(name: str):
    gradients: list[Any] = []
    for x in (X.clone().requires_grad_(), Variable(X)):
        try:
            ACTIVATIONS[name](x, torch.tensor(0.6)).sum().backward()
        except TypeError:
            gradients.append(None)
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[len(gradients) // 2 :], gradients[: len(gradients) // 2])


def outcome(loss: Callable[[Any, Any], Any], kind: str) -> list[Tensor | None] | str:
    make = Variable if kind == "variable" else lambda x: x.requires_grad_()
    x, w = make(X.clone()), make(torch.tensor(W, dtype=torch.float64))
    try:
        with ag.record() if kind == "record" else torch.enable_grad():
            result = loss(x, w)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    result.sum().backward()
    return [result.detach(), x.grad, w.grad]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("kind", ["variable", "record"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_of_weights_are_torchs(name: str, kind: str):
    mine, truth = outcome(LOSSES[name], kind), outcome(LOSSES[name], "torch")
    if isinstance(truth, str) or isinstance(mine, str):
        assert mine == truth
    else:
        torch.testing.assert_close(mine, truth)
