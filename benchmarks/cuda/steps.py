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
from ..workloads import LEARNING_RATE, OPTIMIZERS, OURS, ModelCase, OptimizerCase, elements
from .blocks import block_of, in_turns, wait
from .models import alone, batch_for, looped, parameters
from .record import Row

IN_THE_LOOP, ALONE, GRAPH, MEMORY = "in the loop", "alone", "in a CUDA graph", "memory"


def _built(optimizer: OptimizerCase, params: list[nn.Parameter], row: Row) -> dict[str, Optimizer]:
    """All contenders, after a step, with the same states; the row says which of torch's do not run here."""
    built: dict[str, Optimizer] = {}
    for name in optimizer.contenders():
        if name == "foreach":
            continue
        each = optimizer.build(name, params)
        if built:
            _share_states(next(iter(built.values())), each)
        try:
            each.step()
        except (RuntimeError, NotImplementedError) as error:
            if name == OURS:
                raise
            row.notes.append(f"torch's {name} does not run: {(str(error).splitlines() or [''])[0]}")
        else:
            built[name] = each
    return built


def _share_states(one: Optimizer, other: Optimizer) -> None:
    """Give the states of the first optimizer to the other; counts of steps lie where that one keeps them."""
    on_device = any(group.get("fused") or group.get("capturable") for group in other.param_groups)
    other.state.clear()
    for param, state in one.state.items():
        own = other.state[param] = dict(state)
        if "step" in own:
            own["step"] = own["step"].to(param.device if on_device else "cpu", copy=True)


def in_the_loop(optimizer_name: str, model_name: str, device: torch.device, seconds: float) -> Row:
    """Whole iterations; of ``step()`` what it keeps the host, which is what a small network waits for."""
    torch.manual_seed(0)
    optimizer, model = OPTIMIZERS[optimizer_name], looped(model_name, device)
    network = _network(model_name, device)
    iteration = _forward_and_backward(network, model.batch_shape, device)
    iteration()
    row = Row(IN_THE_LOOP, model.title, optimizer.name, _elements(network))
    built = _built(optimizer, list(network.parameters()), row)
    blocks = {name: block_of(device, each.step, _training(each, iteration)) for name, each in built.items()}
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.12), least=5, most=20))
    row.engine = built[OURS].engine_report()  # type: ignore[attr-defined]
    return row


def step_alone(
    optimizer_name: str, model_name: str, device: torch.device, seconds: float, bandwidth: float
) -> Row:
    """Steps in a row: the host's time or the device's, whichever is longer."""
    optimizer, model = OPTIMIZERS[optimizer_name], alone(model_name, device)
    shapes = model.shapes()
    row = Row(ALONE, model.title, optimizer.name, elements(shapes))
    built = _built(optimizer, parameters(shapes, device), row)
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
    row = Row(GRAPH, model.title, adam.name, elements(shapes))
    built = _built(adam, parameters(shapes, device), row)
    graphs = {name: _captured(each) for name, each in built.items()}
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
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
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
        row.numbers["peak MB"] = (torch.cuda.max_memory_allocated(device) - before) / 1e6
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
