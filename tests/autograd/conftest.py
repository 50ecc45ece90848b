"""How torch's kernels are held to what is compared with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@pytest.fixture
def in_full_precision() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def attention_by_formula() -> Iterator[None]:
    """Torch's fused kernels draw other random numbers and round otherwise."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
