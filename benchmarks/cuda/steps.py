"""What is measured of Adam and the other four: in a training loop, alone, and replayed from a CUDA graph.

All contenders of a case step the same parameters and states, as if each had loaded the other's checkpoint.
Torch's own default on a GPU is its ``foreach``, so that is not measured a second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from ..timing import Pace
from ..workloads import LEARNING_RATE, OPTIMIZERS, OURS, ModelCase, OptimizerCase, elements, share_states
from .blocks import block_of, in_turns, wait
from .models import alone, batch_for, looped, parameters
from .record import Row

IN_THE_LOOP, ALONE, GRAPH, MEMORY = "in the loop", "alone", "in a CUDA graph", "memory"


def contenders_of(optimizer: OptimizerCase) -> list[str]:
    return [name for name in optimizer.contenders() if name != "foreach"]


def in_the_loop(optimizer_name: str, model_name: str, device: torch.device, seconds: float) -> Row:
    """Whole iterations; of ``step()`` what it keeps the host, which is what a small network waits for."""
    torch.manual_seed(0)
    optimizer, model = OPTIMIZERS[optimizer_name], looped(model_name, device)
    network = _network(model_name, device)
    iteration = _forward_and_backward(network, model.batch_shape, device)
    built = {name: optimizer.build(name, network.parameters()) for name in contenders_of(optimizer)}
    blocks = {}
    for name, each in built.items():
        blocks[name] = block_of(device, each.step, _training(each, iteration))
    next(iter(blocks.values()))(1)
    share_states(built.values())
    row = Row(IN_THE_LOOP, model.title, optimizer.name, _elements(network))
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.12), least=5, most=20))
    row.engine = built[OURS].engine_report()  # type: ignore[attr-defined]
    return row


def step_alone(
    optimizer_name: str, model_name: str, device: torch.device, seconds: float, bandwidth: float
) -> Row:
    """Steps in a row: the host's time or the device's, whichever is longer."""
    optimizer, model = OPTIMIZERS[optimizer_name], alone(model_name, device)
    shapes = model.shapes()
    params = parameters(shapes, device)
    built = {name: optimizer.build(name, params) for name in contenders_of(optimizer)}
    next(iter(built.values())).step()
    share_states(built.values())
    row = Row(ALONE, model.title, optimizer.name, elements(shapes))
    blocks = {name: block_of(device, each.step) for name, each in built.items()}
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.02), least=5, most=50))
    row.engine = built[OURS].engine_report()  # type: ignore[attr-defined]
    _compare_with_copy(row, model, optimizer, bandwidth)
    return row


def in_a_graph(model_name: str, device: torch.device, seconds: float, bandwidth: float) -> Row:
    """Adam's step, captured once and replayed: what the device alone takes."""
    if device.type != "cuda":
        raise RuntimeError("a CUDA graph needs a CUDA device")
    adam, model = OPTIMIZERS["Adam"], alone(model_name, device)
    adam = replace(adam, options={**adam.options, "capturable": True})
    shapes = model.shapes()
    params = parameters(shapes, device)
    built = {name: adam.build(name, params) for name in contenders_of(adam)}
    next(iter(built.values())).step()
    share_states(built.values())
    graphs = {name: _captured(each) for name, each in built.items()}
    row = Row(GRAPH, model.title, adam.name, elements(shapes))
    blocks = {name: block_of(device, graph.replay) for name, graph in graphs.items()}
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.02), least=5, most=50))
    row.engine = built[OURS].engine_report()  # type: ignore[attr-defined]
    _compare_with_copy(row, model, adam, bandwidth)
    return row


def _compare_with_copy(row: Row, model: ModelCase, optimizer: OptimizerCase, bandwidth: float) -> None:
    """Of models that no cache holds, how near ours comes to the rate of a copy, in bytes a second."""
    if model.large:
        moved = row.elements * optimizer.bytes_per_element
        row.numbers["of copy bandwidth"] = moved / (row.times[OURS].whole.median * 1e-6) / bandwidth


def _captured(optimizer: Optimizer) -> torch.cuda.CUDAGraph:
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph


def peak_memory(how: str, device: torch.device) -> Row:
    """MB that a training of the transformer takes at most, with its parameters, in three iterations."""
    torch.manual_seed(0)
    model, network = looped("transformer", device), _network("transformer", device)
    optimizer = MEMORY_HOW[how](network.parameters())
    iteration = _training(optimizer, _forward_and_backward(network, model.batch_shape, device))
    row = Row(MEMORY, model.title, how, _elements(network))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        iteration()
        optimizer.step()
    wait(device)
    if device.type == "cuda":
        row.numbers["peak MB"] = torch.cuda.max_memory_allocated(device) / 1e6
    if hasattr(optimizer, "engine_report"):
        row.engine = optimizer.engine_report()
    return row


def _ours(**options: Any) -> Callable[[Any], Optimizer]:
    return lambda params: OPTIMIZERS["Adam"].of_ours(params, lr=LEARNING_RATE, **options)


def _torchs(name: str) -> Callable[[Any], Optimizer]:
    return lambda params: OPTIMIZERS["Adam"].build(name, params)


MEMORY_HOW: dict[str, Callable[[Any], Optimizer]] = {
    "torch default": _torchs("default"),
    "torch fused": _torchs("fused"),
    "ours, float32": _ours(),
    "ours, states bfloat16": _ours(state_dtype=torch.bfloat16),
    "ours, states 8 bits": _ours(state_dtype="8bit"),
}


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of ``b.copy_(a)``, reading and writing counted, the best of several."""
    n = 1 << (28 if device.type == "cuda" else 20)
    a, b = torch.ones(n, device=device), torch.empty(n, device=device)
    best = 0.0
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        for _ in range(5):
            b.copy_(a)
        wait(device)
        best = max(best, 5 * 2 * a.nbytes / (time.perf_counter() - start))
    return best


def _network(model_name: str, device: torch.device) -> nn.Module:
    network = looped(model_name, device).network
    assert network is not None, "all of these have one"
    with device:
        return network()


def _forward_and_backward(
    network: nn.Module, shape: tuple[int, ...], device: torch.device
) -> Callable[[], None]:
    inputs, labels = batch_for(network, shape, device)

    def both() -> None:
        cross_entropy(network(inputs).flatten(0, -2), labels).backward()

    return both


def _training(optimizer: Optimizer, both: Callable[[], None]) -> Callable[[], None]:
    """An iteration but for its step."""

    def iteration() -> None:
        optimizer.zero_grad()
        both()

    return iteration


def _elements(network: nn.Module) -> int:
    return sum(param.numel() for param in network.parameters())
