"""The networks that are trained are those of the papers."""

from __future__ import annotations

import pytest
import torch

from benchmarks.networks import Transformer, resnet18
from benchmarks.workloads import gpt2_shapes


def test_resnet18_has_torchvisions_tensors() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs, ours = models.resnet18(), resnet18()
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_resnet18_computes_what_torchvisions_does() -> None:
    models = pytest.importorskip("torchvision.models")
    theirs, ours = models.resnet18().eval(), resnet18().eval()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data.copy_(other)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))


def test_the_transformer_has_the_tensors_of_gpt2_small() -> None:
    with torch.device("meta"):
        network = Transformer()
    mine = [sorted(param.shape) for param in network.parameters()]  # sorted, for GPT-2's are transposed
    assert sorted(mine) == sorted(map(sorted, gpt2_shapes()))


def test_the_transformer_looks_at_no_later_word() -> None:
    network = Transformer(words=20, positions=8, width=8, blocks=2, heads=2).eval()
    tokens = torch.randint(20, (2, 6))
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 20
    before, after = network(tokens), network(changed)
    assert before.shape == (2, 6, 20)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])
