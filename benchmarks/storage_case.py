"""Adam's step in one way of keeping its numbers, beside somebody else's; one process measures one pair.

``python -m benchmarks.storage_case "float32" "torch fused" gpt2`` prints what it found as JSON. Both step the
same parameters and read the same gradients, so that a model of 350 million fits twice into a small machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import torchopt_course as oc

from .machine import free_bytes, torch_threads
from .timing import Call, Pace, Spread, interleave, ratio, spread
from .workloads import LEARNING_RATE, elements, gpt2_shapes

B, F = torch.bfloat16, torch.float32


@dataclass(frozen=True)
class Way:
    """How ours keeps its numbers.

    Attributes:
        params, grads: their dtypes.
        options: of our Adam.
    """

    params: torch.dtype = F
    grads: torch.dtype = F
    options: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "float32": Way(),
    "states bfloat16": Way(options={"state_dtype": B}),
    "states bfloat16, stochastic": Way(options={"state_dtype": B, "rounding": "stochastic"}),
    "states bfloat16, Kahan": Way(options={"state_dtype": B, "rounding": "kahan"}),
    "states 8 bits": Way(options={"state_dtype": "8bit"}),
    "states 8 bits, stochastic": Way(options={"state_dtype": "8bit", "rounding": "stochastic"}),
    "gradients bfloat16": Way(grads=B),
    "gradients and states bfloat16": Way(grads=B, options={"state_dtype": B}),
    "all bfloat16, states float32": Way(B, B, {"state_dtype": F}),
    "all bfloat16": Way(B, B, {"rounding": "nearest"}),
    "all bfloat16, stochastic": Way(B, B, {"rounding": "stochastic"}),
    "all bfloat16, Kahan": Way(B, B, {"rounding": "kahan"}),
}
MODELS: dict[str, tuple[str, Callable[[], list[tuple[int, ...]]]]] = {
    "gpt2": ("GPT-2 small", gpt2_shapes),
    "gpt2-medium": ("GPT-2 medium", lambda: gpt2_shapes(width=1024, blocks=24)),
}
# What both take of the machine, for each element: parameter, two gradients, four states of 4 bytes.
BYTES = 28


class NotEnoughMemoryError(Exception):
    """The machine has not got it free."""


@dataclass(frozen=True)
class Found:
    """Milliseconds of a step.

    Attributes:
        bytes_of_states: of ours, for each element.
        ratio: theirs by ours, above one where ours is faster.
    """

    way: str
    peer: str
    model: str
    threads: int
    bytes_of_states: float
    ours: Spread
    theirs: Spread
    ratio: Spread


def of_torch(params: Sequence[Parameter], way: Way, **engine: Any) -> Call:
    step: Call = torch.optim.Adam(params, lr=LEARNING_RATE, **engine).step
    return step


def cpu_adam(params: Sequence[Parameter], way: Way) -> Call:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    options = {"adamw_mode": False, "fp32_optimizer_states": way.params == F}
    step: Call = DeepSpeedCPUAdam(params, lr=LEARNING_RATE, **options).step
    return step


FULL = "torch in full"
PEERS: dict[str, Callable[[Sequence[Parameter], Way], Call]] = {
    "torch default": of_torch,
    "torch fused": lambda params, way: of_torch(params, way, fused=True),
    "DeepSpeed CPUAdam": cpu_adam,
    FULL: lambda params, way: of_torch(params, way, fused=True),
}


def their_step(peer: str, way: Way, values: Sequence[Tensor], grads: Sequence[Tensor]) -> Call:
    """In the parameters' precision. Gradients of another one are copied, for nobody else reads them."""
    if peer == FULL and way.params != F:
        values = [value.float() for value in values]
    params = [Parameter(value) for value in values]
    if grads[0].dtype == params[0].dtype or peer == FULL:
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.to(param.dtype)
        return PEERS[peer](params, way)
    for param in params:
        param.grad = torch.zeros_like(param)
    own, given = [param.grad for param in params if param.grad is not None], list(grads)
    step = PEERS[peer](params, way)

    def copy_and_step() -> None:
        torch._foreach_copy_(own, given)
        step()

    return copy_and_step


def side_by_side(
    way: Way, peer: str, shapes: Sequence[tuple[int, ...]], device: torch.device, **engine: Any
) -> tuple[oc.Adam, dict[str, Call]]:
    """Our optimizer, and the steps of both on the same parameters and gradients.

    Args:
        engine: of ours; without one, the fastest that serves this way of storing.
    """
    values = [torch.empty(shape, device=device).uniform_(-1, 1).to(way.params) for shape in shapes]
    grads = [torch.empty(shape, device=device).uniform_(-1e-2, 1e-2).to(way.grads) for shape in shapes]
    params = [Parameter(value) for value in values]
    for param, grad in zip(params, grads, strict=True):
        param.grad_dtype = grad.dtype
        param.grad = grad
    optimizer = oc.Adam(params, lr=LEARNING_RATE, **engine, **way.options)
    return optimizer, {"ours": optimizer.step, "theirs": their_step(peer, way, values, grads)}


def bytes_of_states(optimizer: oc.Adam) -> int:
    """Without the counts of steps."""
    states = [state for own in optimizer.state.values() for name, state in own.items() if name != "step"]
    return sum(state.nbytes for state in states)


def measure(way_name: str, peer: str, model: str, threads: int, seconds: float) -> Found:
    """
    Raises:
        NotEnoughMemoryError: before anything is allocated.
    """
    way, shapes = WAYS[way_name], MODELS[model][1]()
    count = elements(shapes)
    free = free_bytes()
    if free is not None and free < BYTES * count:
        raise NotEnoughMemoryError(f"{BYTES * count / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free")
    torch.manual_seed(0)
    with torch_threads(threads):
        optimizer, steps = side_by_side(way, peer, shapes, torch.device("cpu"), fused=True)
        samples = interleave(steps, Pace(seconds, least_rounds=5))
    ours, theirs = (
        spread(nanoseconds / 1e6 for turn in samples[name] for nanoseconds in turn) for name in steps
    )
    return Found(
        *(way_name, peer, model, threads),
        bytes_of_states=bytes_of_states(optimizer) / count,
        ours=ours,
        theirs=theirs,
        ratio=ratio(samples["theirs"], samples["ours"]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage_case")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    try:
        found = asdict(measure(options.way, options.peer, options.model, options.threads, options.seconds))
    except ImportError as error:
        found = {"skipped": f"not installed: {error}"}
    except NotEnoughMemoryError as error:
        found = {"skipped": f"it takes {error}"}
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main()
