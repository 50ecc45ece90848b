"""What each process of a distributed launch does: all scenarios, one after the other, reported by name.

Starting processes costs far more than training a small network, so one launch runs them all, as would::

    torchrun --standalone --nproc-per-node=4 -m tests.distributed.worker DIRECTORY

Four processes leave checkpoints under DIRECTORY, which two processes, launched later, load. Every rank writes
``DIRECTORY/<processes>-<rank>.jsonl``: for each scenario a line with its name and ``"ok"`` or a traceback.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from recipes.zoo.adafactor import Adafactor

from .beside_torch import agree_with_torch, placed_otherwise, stale_backward, zero_redundancy
from .checkpoints import load, save
from .networks import (
    KINDS,
    MODULES,
    OPTIONS,
    data_parallel,
    divided_twice,
    half_tensor_parallel,
    offloaded,
    sharded,
    tensor_parallel,
)
from .of_whole_tensors import Lamb, OfRows, Prodigious, no_number_of_a_part, one_plan, whole_tensors


def scenarios(processes: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for name in ("SGD", "Adam"):
        yield f"DistributedDataParallel {name}", partial(agree_with_torch, name, data_parallel, True)
        yield f"fully_shard, offloaded {name}", partial(agree_with_torch, name, offloaded, True)
        yield f"half tensor-parallel {name}", partial(agree_with_torch, name, half_tensor_parallel, False)
        yield f"ZeroRedundancyOptimizer {name}", partial(zero_redundancy, name, name == "Adam")
    if processes == 4:
        both = torch.float64, torch.float32, torch.float64
        yield (
            "one plan, fully_shard",
            lambda _: one_plan(sharded, both[:1]),
        )  # it does not survive another dtype
        for name, prepare in {"tensor-parallel": tensor_parallel, "half": half_tensor_parallel}.items():
            yield f"one plan, {name}", lambda _, prepare=prepare: one_plan(prepare, both)
        for name, (prepare, share) in {
            "fully_shard": (sharded, True),
            "tensor-parallel": (tensor_parallel, False),
            "half": (half_tensor_parallel, False),
        }.items():
            for rule in (Lamb, Adafactor, Prodigious, OfRows):
                yield (
                    f"whole tensors, {name} {rule.__name__}",
                    lambda _, p=prepare, s=share, r=rule: whole_tensors(p, s, r),
                )
        yield "tensor-parallel and fully_shard Adam", partial(agree_with_torch, "Adam", divided_twice, False)
        yield "ZeroRedundancyOptimizer, numbers of several tensors", lambda _: no_number_of_a_part()
    else:
        for name, what in itertools.product(("SGD", "Adam"), ("gradients", "states")):
            yield f"tensor-parallel {name}, {what} placed otherwise", partial(placed_otherwise, name, what)
        for by, name in itertools.product(MODULES, ("SGD", "Adam")):  # without states and with
            yield (
                f"tensor-parallel {name} of {by} between forward and backward",
                partial(stale_backward, by, name),
            )
    for kind, optimizers in {"fully_shard": tuple(OPTIONS), "tensor-parallel": ("SGD", "Adam")}.items():
        for name in optimizers:
            if processes == 4:
                yield f"{kind} {name}, saved", partial(save, kind, name)
            else:
                yield f"{kind} {name}", partial(agree_with_torch, name, *KINDS[kind][:2])
                for by, to in (("ours", "ours"), ("ours", "torch"), ("torch", "ours")):
                    yield f"{kind} {name}, saved by {by}, loaded by {to}", partial(load, kind, name, by, to)


def main(directory: Path) -> int:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    processes, rank = dist.get_world_size(), dist.get_rank()
    with (directory / f"{processes}-{rank}.jsonl").open("w", buffering=1) as report:
        for name, run in scenarios(processes):
            outcome, alive = "ok", True
            try:
                run(directory)
            except AssertionError:
                outcome = traceback.format_exc()
            except BaseException:  # as torch.distributed.checkpoint raises
                # The other ranks now wait for this one: no later scenario can be trusted, torchrun ends them.
                outcome, alive = traceback.format_exc(), False
            print(json.dumps([name, outcome]), file=report)
            if not alive:
                return 1
    dist.destroy_process_group()
    return 0


def in_a_process(directory: Path, output: Path) -> None:
    """All of it, with what is said in a file."""
    with open(output, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    end(main(directory))


def end(code: int) -> None:
    """Without waiting for gloo's threads."""
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main(Path(sys.argv[1])))
