"""The larger networks that are trained: ResNet-18, and a transformer of GPT-2 small's shape."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class _Residual(nn.Module):
    """Two convolutions beside an identity, or beside a projection where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        projection = (nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.shortcut(x))  # type: ignore[no-any-return]


def resnet18(classes: int = 1000, width: int = 64) -> nn.Sequential:
    """He et al., Deep Residual Learning for Image Recognition, 2015: 11.7 million parameters."""
    widths = (width, width, 2 * width, 4 * width, 8 * width)
    stages = [
        block
        for before, after in pairwise(widths)
        for block in (_Residual(before, after, after // before), _Residual(after, after, 1))
    ]
    return nn.Sequential(
        *(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
        *(
            nn.MaxPool2d(3, 2, 1),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, classes),
        ),
    )


class Transformer(nn.Module):
    """A decoder of GPT-2 small's shapes by default: what it reads out with is the embedding of its words."""

    def __init__(
        self, words: int = 50257, positions: int = 1024, width: int = 768, blocks: int = 12, heads: int = 12
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Embedding(positions, width)
        block = nn.TransformerEncoderLayer(
            *(width, heads, 4 * width), dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, blocks, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Of tokens (batch, length) the logits (batch, length, words) of those that follow."""
        length = tokens.shape[1]
        places = torch.arange(length, device=tokens.device)
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.blocks(self.words(tokens) + self.positions(places), mask=mask, is_causal=True)
        return nn.functional.linear(hidden, self.words.weight)
