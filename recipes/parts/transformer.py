"""A small transformer that reads characters: at each place it says which one comes next."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.common.data import Data


class Attention(nn.Module):
    """Every place looks at itself and at those before it, with several heads at once."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, places: Tensor) -> Tensor:
        """rows x places x width, in and out"""
        split: Tensor = self.query_key_value(places).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # 3 x rows x heads x places x width of a head
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Look at the places before, then think about each; what was there goes on beside it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.thought = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        )

    def forward(self, places: Tensor) -> Tensor:
        places = places + self.attention(places)
        return places + self.thought(places)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Numbers of characters, rows x places, to scores, rows x characters x places."""

    def __init__(self, letters: int, places: int, width: int = 64, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(places, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.scores = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, letters))
        for embedding in (self.letters, self.places):
            nn.init.normal_(embedding.weight, std=0.02)  # as in GPT-2

    def forward(self, text: Tensor) -> Tensor:
        where = torch.arange(text.shape[1], device=text.device)
        scores: Tensor = self.scores(self.blocks(self.letters(text) + self.places(where)))
        return scores.transpose(1, 2)


def make_transformer(data: Data, seed: int) -> Transformer:
    """One for the characters and the windows of a text, with the seed's initial weights."""
    torch.manual_seed(seed)
    return Transformer(len(data.classes), data.side)
