# ruff: noqa: E501
"""Unmodified recurrent layers and cells: the same gradients as torch."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

from torchopt_course import autograd

from .module_gradients import assert_same_gradients

DEEP = {"num_layers": 2, "bidirectional": True, "batch_first": True}


@pytest.mark.parametrize(("kind", "how"), [
    (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu", "bias": False, "num_layers": 2}), (nn.RNN, DEEP),
    (nn.LSTM, {}), (nn.LSTM, {"bias": False, "num_layers": 2}), (nn.LSTM, DEEP),
    (nn.LSTM, {"proj_size": 2, "bidirectional": True}), (nn.GRU, {}), (nn.GRU, {"bias": False}), (nn.GRU, DEEP),
])  # fmt: skip
def test_recurrent_layers(kind: type[nn.RNNBase], how: dict[str, Any]):
    torch.manual_seed(0)
    model, x = kind(3, 4, **how).double(), torch.randn(5, 2, 3).double()

    def loss(model: nn.Module) -> Any:
        output, last = model(x)
        return output.square().sum() + sum((k + 1) * s.sum() for k, s in enumerate(last))

    before = model(x)[0]
    assert_same_gradients(model, loss, 1e-12)
    assert all(isinstance(w, nn.Parameter) for w in model._flat_weights)
    torch.testing.assert_close(model(x)[0], before, rtol=0, atol=0)


@pytest.mark.parametrize("cell", [nn.RNNCell(3, 4), nn.RNNCell(3, 4, nonlinearity="relu"), nn.LSTMCell(3, 4),
                                  nn.GRUCell(3, 4, bias=False)])  # fmt: skip
def test_recurrent_cells(cell: nn.Module):
    x = torch.randn(2, 2, 3)

    def loss(cell: nn.Module) -> Any:
        state = cell(x[1], cell(x[0]))
        return (state[0] if isinstance(state, tuple) else state).square().sum()

    assert_same_gradients(cell, loss, 1e-5)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize(("kind", "options"), [
    (nn.GRU, {}), (nn.RNN, {"bidirectional": True}), (nn.RNN, {"nonlinearity": "relu", "batch_first": True}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 2, "dropout": 0.5}),
])  # fmt: skip
def test_recurrent_layers_of_packed_sequences(kind: type[nn.Module], options: Any, enforce_sorted: bool):
    torch.manual_seed(0)
    model, batch_first = kind(3, 4, **options).double(), options.get("batch_first", False)
    x = torch.randn((4, 5, 3) if batch_first else (5, 4, 3), dtype=torch.float64)
    lengths, results = ([5, 4, 2, 2] if enforce_sorted else [2, 5, 1, 3]), []
    for block in (contextlib.nullcontext, autograd.record):
        model.zero_grad()
        torch.manual_seed(1)
        leaf = x.clone().requires_grad_()
        with block():
            packed = nn.utils.rnn.pack_padded_sequence(leaf, lengths, batch_first, enforce_sorted)
            output, state = model(packed)
            padded, found = nn.utils.rnn.pad_packed_sequence(output, batch_first, 0.5, total_length=6)
            states = state if isinstance(state, tuple) else (state,)
            loss = padded.square().sum() + sum((s**3).sum() for s in states)
        loss.backward()
        results.append([padded.detach(), found, leaf.grad, *[p.grad for p in model.parameters()]])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
