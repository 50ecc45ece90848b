"""Recurrent layers, step by step: torch's fused kernels written out in operations that the table knows.

``nn.RNN``, ``nn.LSTM``, ``nn.GRU`` and their cells come here by themselves. Formulas as in torch's
documentation of these modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dispatch import means
from ..traced import Value, raw

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


def _forwards(step: Step, inputs: Sequence[Value], initial: State, weights: Any) -> tuple[list[Value], State]:
    """From the first step to the last. In a packed batch fewer and fewer sequences go on."""
    state, outputs, ended = initial, [], []
    for x in inputs:
        if len(x) < len(state[0]):
            ended.append(tuple(s[len(x) :] for s in state))
            state = tuple(s[: len(x)] for s in state)
        state = step(x, state, weights)
        outputs.append(state[0])
    if ended:
        state = tuple(torch.cat(parts) for parts in zip(state, *reversed(ended), strict=True))
    return outputs, state


def _backwards(
    step: Step, inputs: Sequence[Value], initial: State, weights: Any
) -> tuple[list[Value], State]:
    """From the last step to the first. In a packed batch more and more sequences join in."""
    state, outputs = tuple(s[: len(inputs[-1])] for s in initial), []
    for x in reversed(inputs):
        if len(x) > len(state[0]):
            joining = [s[len(state[0]) : len(x)] for s in initial]
            state = tuple(torch.cat(parts) for parts in zip(state, joining, strict=True))
        state = step(x, state, weights)
        outputs.append(state[0])
    return outputs[::-1], state


def _layers(
    step: Step, input: Value, batch_sizes: Tensor | None, initial: State, flat_weights: Any,
    has_biases: bool, num_layers: int, dropout: float, train: bool, bidirectional: bool,
    batch_first: bool = False,
) -> tuple[Value, State]:  # fmt: skip
    """Layer upon layer, in one direction or both, one step after the other.

    Args:
        input: of shape (steps, batch, features); with ``batch_sizes`` those of all steps in one row.
        batch_sizes: how many sequences of a packed batch have this step.
    """
    directions = (_forwards, _backwards) if bidirectional else (_forwards,)
    each = len(flat_weights) // (num_layers * len(directions))
    x, last = input.transpose(0, 1) if batch_first else input, []
    for k in range(num_layers):
        results = []
        inputs = list(x) if batch_sizes is None else x.split(batch_sizes.tolist())
        for index, direction in enumerate(directions, k * len(directions)):
            weights = list(flat_weights[index * each : (index + 1) * each])
            if not has_biases:
                weights[2:2] = [None, None]
            outputs, state = direction(step, inputs, tuple(s[index] for s in initial), weights)
            results.append(torch.stack(outputs) if batch_sizes is None else torch.cat(outputs))
            last.append(state)
        x = results[0] if len(results) == 1 else torch.cat(results, -1)
        if k < num_layers - 1:
            x = F.dropout(x, dropout, train)
    final = tuple(torch.stack(part) for part in zip(*last, strict=True))
    return (x.transpose(0, 1) if batch_first else x), final


@means("_cudnn_rnn_flatten_weight", checked=True)
def _flatten_weights(weights: Sequence[Value], *how: Any) -> Tensor:
    """Where weights lie in memory is nothing to differentiate; on a GPU torch asks for it at new ones."""
    return torch._cudnn_rnn_flatten_weight([raw(w).detach() for w in weights], *how)


@means("lstm")
def _lstm(input: Value, *how: Any) -> tuple[Value, Value, Value]:
    """The arguments are (states, weights, ...), for a packed batch (batch_sizes, states, weights, ...)."""
    batch_sizes, hx, *rest = how if isinstance(how[0], Tensor) else (None, *how)
    output, (h, c) = _layers(_lstm_step, input, batch_sizes, tuple(hx), *rest)
    return output, h, c


def _of_one_state(name: str, step: Step) -> None:
    @means(name)
    def layers(input: Value, *how: Any) -> tuple[Value, Value]:
        batch_sizes, hx, *rest = how if isinstance(how[1], Tensor) else (None, *how)
        output, (h,) = _layers(step, input, batch_sizes, (hx,), *rest)
        return output, h


_of_one_state("gru", _gru_step)
_of_one_state("rnn_tanh", _rnn_step(torch.tanh))
_of_one_state("rnn_relu", _rnn_step(torch.relu))


@means("_pack_padded_sequence")
def _pack(input: Value, lengths: Tensor, batch_first: bool) -> tuple[Value, Tensor]:
    """The first step of all sequences, sorted by length, then the second, ...; how many each step has."""
    x = input.transpose(0, 1) if batch_first else input
    batch_sizes = (lengths > torch.arange(int(lengths[0]), device=lengths.device).unsqueeze(1)).sum(1)
    return torch.cat([x[t, :n] for t, n in enumerate(batch_sizes.tolist())]), batch_sizes


@means("_pad_packed_sequence")
def _unpack(
    data: Value, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Value, Tensor]:
    """Back again, with a number behind the end of each sequence."""
    steps, sizes = max(len(batch_sizes), total_length), batch_sizes.tolist()
    missing = [sizes[0] - n for n in sizes] + [sizes[0]] * (steps - len(sizes))
    rows = [*data.split(sizes), *[data[:0]] * (steps - len(sizes))]
    other = [0, 0] * (data.dim() - 1)
    padded = torch.stack(
        [F.pad(x, (*other, 0, n), value=padding_value) for x, n in zip(rows, missing, strict=True)]
    )
    lengths = (batch_sizes > torch.arange(sizes[0], device=batch_sizes.device).unsqueeze(1)).sum(1)
    return (padded.transpose(0, 1) if batch_first else padded), lengths


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
