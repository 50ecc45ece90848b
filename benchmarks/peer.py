"""AdamW of other packages, each beside ours: ``python -m benchmarks.peer "DeepSpeed CPUAdam" mlp``.

One process measures one peer on one model, and prints what it found as JSON: some packages change torch for
the whole process, or bring threads of their own. Both step the same parameters with the same gradients, and
only their states are their own: where a tensor of 100 MB happens to lie makes a step up to 1.5 times slower.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from time import perf_counter
from typing import Any

import torch
from torch import nn

import torchopt_course
from torchopt_course.engines.native.step import make_ready

from .machine import torch_threads
from .timing import Call, Pace, Spread, interleave, microseconds, ratio
from .workloads import LEARNING_RATE, MODELS, OURS, copies, random_parameters

OPTIONS: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}

Parameters = list[nn.Parameter]


@dataclass(frozen=True)
class Peer:
    """Somebody else's AdamW.

    Attributes:
        package: the distribution that it comes with, whose version is told.
        build: from parameters and a learning rate to a step.
    """

    name: str
    package: str
    build: Callable[[Parameters, float], Call]


@dataclass(frozen=True)
class Measured:
    """One peer beside ours on one model; microseconds but where it is said.

    Attributes:
        ratio: the peer's time by ours, above one where ours is faster.
        first_step: seconds to build the optimizer, compile what is compiled and take a step.
        difference: the largest from torch's AdamW in parameters near 1, after a few large steps.
    """

    peer: str
    model: str
    threads: int
    date: str
    version: str
    peers: Spread
    ours: Spread
    ratio: Spread
    first_step: float
    difference: float


def ours(params: Parameters, lr: float) -> Call:
    return torchopt_course.AdamW(params, lr=lr, **OPTIONS).step


def of_torch(params: Parameters, lr: float, **engine: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(params, lr=lr, **OPTIONS, **engine)


def compiled_step(params: Parameters, lr: float) -> Call:
    if shutil.which("g++") is None:
        raise ImportError("it needs g++")
    torch._dynamo.reset()  # no step compiled for another model
    step: Call = torch.compile(of_torch(params, lr).step)
    return step


def cpu_adam(params: Parameters, lr: float) -> Call:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    step: Call = DeepSpeedCPUAdam(params, lr=lr, **OPTIONS, adamw_mode=True).step
    return step


def optimi(params: Parameters, lr: float, **engine: bool) -> Call:
    from optimi import AdamW

    step: Call = AdamW(params, lr=lr, **OPTIONS, **engine).step
    return step


def pytorch_optimizer(params: Parameters, lr: float) -> Call:
    from pytorch_optimizer import StableAdamW

    # Its AdamW is torch's; this is its own loop that is nearest.
    step: Call = StableAdamW(params, lr=lr, **OPTIONS).step
    return step


def heavyball(params: Parameters, lr: float) -> Call:
    from heavyball import AdamW

    # By default a step takes the gradients away, and the next one has nothing to do.
    step: Call = AdamW(params, lr=lr, **OPTIONS, consume_grad=False).step
    return step


PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch default", "torch", lambda params, lr: of_torch(params, lr).step),
        Peer("torch fused", "torch", lambda params, lr: of_torch(params, lr, fused=True).step),
        Peer("torch.compile(step)", "torch", compiled_step),
        Peer("DeepSpeed CPUAdam", "deepspeed", cpu_adam),
        Peer("optimi", "torch-optimi", optimi),
        Peer("optimi foreach", "torch-optimi", lambda params, lr: optimi(params, lr, foreach=True)),
        Peer("pytorch_optimizer StableAdamW", "pytorch-optimizer", pytorch_optimizer),
        Peer("heavyball", "heavyball", heavyball),
    )
}


def difference_from_torch(peer: Peer, steps: int = 5) -> float:
    """Between what a peer and torch's AdamW make of the same parameters and the same changing gradients."""
    torch.manual_seed(0)
    params = random_parameters([(40, 30), (7,)])
    both = params, copies(params)
    calls = peer.build(both[0], 1e-2), of_torch(both[1], 1e-2).step
    for _ in range(steps):
        for mine, theirs in zip(*both, strict=True):
            mine.grad = torch.randn(mine.shape)
            theirs.grad = mine.grad.clone()
        for call in calls:
            call()
    return max(float((a - b).detach().abs().max()) for a, b in zip(*both, strict=True))


def measure(peer: Peer, model: str, threads: int, pace: Pace) -> Measured:
    with torch_threads(threads):
        torch.manual_seed(0)
        params = random_parameters(MODELS[model].shapes())
        start = perf_counter()
        their_step = peer.build(params, LEARNING_RATE)
        their_step()
        first_step = perf_counter() - start
        our_step = ours(params, LEARNING_RATE)
        make_ready()  # which would wait for a later step
        our_step()
        samples = interleave({peer.name: their_step, OURS: our_step}, pace)
    return Measured(
        peer=peer.name,
        model=model,
        threads=threads,
        date=datetime.now().astimezone().isoformat(timespec="minutes"),
        version=version(peer.package),
        peers=microseconds(samples[peer.name]),
        ours=microseconds(samples[OURS]),
        ratio=ratio(samples[peer.name], samples[OURS]),
        first_step=first_step,
        difference=difference_from_torch(peer),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    try:
        pace = Pace(options.seconds, least_rounds=5)
        found = asdict(measure(PEERS[options.peer], options.model, options.threads, pace))
    except ImportError as error:
        found = {"skipped": f"not installed: {error}"}
    except Exception as error:  # installed, but not for this machine
        found = {"skipped": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main()
