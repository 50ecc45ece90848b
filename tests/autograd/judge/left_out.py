"""What is not judged, since torch itself has no answer there, or another one in each version or run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from torch.utils import _pytree as pytree

# Torch's own backward kernel reads beyond its memory there (2.14.1).
TORCH_DIES = {("nn.functional.grid_sample", torch.bfloat16), ("grid_sampler_2d", torch.bfloat16)}
# At a tie, or a bound, torch has another derivative since 2.13: 1/2 and 1/2, or 0, no longer 1 and 0.
OTHER_AT_TIES = set[tuple[str, torch.dtype]]()
if TorchVersion(torch.__version__) < "2.13":
    TIES = ("clamp", "clamp_min", "clamp_max", "fmin", "fmax")
    OTHER_AT_TIES |= {(name, d) for name in TIES for d in (torch.float64, torch.float32, torch.bfloat16)}
    TRIPLETS = ("nn.functional.triplet_margin_loss", "nn.functional.triplet_margin_with_distance_loss")
    OTHER_AT_TIES |= {(name, torch.bfloat16) for name in TRIPLETS}  # so coarse that there are some
# Torch's second derivative is wrong there: zero for a parabola, and for what is computed in chunks.
FIRST_ORDER_ONLY = {
    "nn.MultiMarginLoss",
    "nn.LinearCrossEntropyLoss",
    "nn.functional.linear_cross_entropy.chunked",
    "nn.functional.linear_cross_entropy.chunked_none",
}

# Where numbers are large torch's own derivative is a difference of large numbers, and then 0, or 0 times
# 2^1000.
TORCH_ROUNDS = {"special.log_ndtr", "ldexp"}

# Matrices of such numbers have no inverse, and equal eigenvalues.
SMOOTH_ONLY = (
    "linalg",
    "svd",
    "pca",
    "cholesky",
    "lu",
    "qr",
    "pinverse",
    "logdet",
    "triangular",
    "ormqr",
    "geqrf",
)


# At anything else the CPU raises, and a GPU answers no more in this process.
OF_PROBABILITIES = {"bernoulli", "nn.functional.binary_cross_entropy"}


def is_by_chance(name: str, sample: Any, device: str) -> bool:
    """Whether the result is nothing but round-off, or of which thread comes last."""
    if name == "cov":  # (x - y)² / 2, whatever the two weights
        return sample.input.shape[-1] == 2 and sample.kwargs.get("aweights") is not None
    if device != "cpu" and name.startswith("nn.functional.max_unpool"):
        planes = sample.args[0].flatten(-2 if "2d" in name else -3 if "3d" in name else -1).sort(-1).values
        return bool((planes.diff(dim=-1) == 0).any())  # a place that is written to twice
    return False


def is_large(sample: Any) -> bool:
    return any(isinstance(x, Tensor) and bool((x.abs() > 1000).any()) for x in leaves_of(sample))


def leaves_of(sample: Any) -> list[Any]:
    return pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
