"""Recurrent layers, step by step: torch's fused kernels written out in operations that the table knows.

``nn.RNN``, ``nn.LSTM``, ``nn.GRU`` and their cells come here by themselves. Formulas as in torch's
documentation of these modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value

State = tuple[Value, ...]  # h, for the LSTM (h, c)
Step = Callable[[Value, State, Sequence[Value]], State]


def _lstm_step(x: Value, state: State, weights: Sequence[Value]) -> State:
    h, c = state
    w_ih, w_hh, b_ih, b_hh = weights[:4]
    i, f, g, o = torch.chunk(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh), 4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if len(weights) == 4 else F.linear(h, weights[4])), c


def _gru_step(x: Value, state: State, weights: Sequence[Value]) -> State:
    (h,), (w_ih, w_hh, b_ih, b_hh) = state, weights
    x_r, x_z, x_n = torch.chunk(F.linear(x, w_ih, b_ih), 3, -1)
    h_r, h_z, h_n = torch.chunk(F.linear(h, w_hh, b_hh), 3, -1)
    z, n = torch.sigmoid(x_z + h_z), torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
    return (n + z * (h - n),)


def _rnn_step(nonlinearity: Callable[[Value], Value]) -> Step:
    def step(x: Value, state: State, weights: Sequence[Value]) -> State:
        (h,), (w_ih, w_hh, b_ih, b_hh) = state, weights
        return (nonlinearity(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)),)

    return step


def _layers(
    step: Step, input: Value, initial: State, flat_weights: Any, has_biases: Any, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Value, State]:  # fmt: skip
    """Layer upon layer, in one direction or both, one step after the other."""
    if not isinstance(has_biases, bool):
        raise NotImplementedError("recurrent layers take padded tensors here, not packed sequences")
    directions = 2 if bidirectional else 1
    each = len(flat_weights) // (num_layers * directions)
    x, last = input.transpose(0, 1) if batch_first else input, []
    for k in range(num_layers):
        results = []
        for index in range(k * directions, (k + 1) * directions):
            weights = list(flat_weights[index * each : (index + 1) * each])
            if not has_biases:
                weights[2:2] = [None, None]
            state: State = tuple(s[index] for s in initial)
            reverse = index % directions == 1
            outputs = []
            for t in reversed(range(x.shape[0])) if reverse else range(x.shape[0]):
                state = step(x[t], state, weights)
                outputs.append(state[0])
            results.append(torch.stack(outputs[::-1] if reverse else outputs))
            last.append(state)
        x = results[0] if directions == 1 else torch.cat(results, -1)
        if k < num_layers - 1:
            x = F.dropout(x, dropout, train)
    final = tuple(torch.stack(part) for part in zip(*last, strict=True))
    return (x.transpose(0, 1) if batch_first else x), final


@means("lstm")
def _lstm(input: Value, hx: Sequence[Value], *how: Any) -> tuple[Value, Value, Value]:
    output, (h, c) = _layers(_lstm_step, input, tuple(hx), *how)
    return output, h, c


def _of_one_state(name: str, step: Step) -> None:
    @means(name)
    def layers(input: Value, hx: Value, *how: Any) -> tuple[Value, Value]:
        output, (h,) = _layers(step, input, (hx,), *how)
        return output, h


_of_one_state("gru", _gru_step)
_of_one_state("rnn_tanh", _rnn_step(torch.tanh))
_of_one_state("rnn_relu", _rnn_step(torch.relu))


@means("lstm_cell")
def _lstm_cell(input: Value, hx: Sequence[Value], *weights: Value) -> State:
    return _lstm_step(input, tuple(hx), weights)


def _cell_of_one_state(name: str, step: Step) -> None:
    @means(name)
    def cell(input: Value, hx: Value, *weights: Value) -> Value:
        return step(input, (hx,), weights)[0]


_cell_of_one_state("gru_cell", _gru_step)
_cell_of_one_state("rnn_tanh_cell", _rnn_step(torch.tanh))
_cell_of_one_state("rnn_relu_cell", _rnn_step(torch.relu))
