"""Forward and backward through the mini autograd, torch's and others: `python -m benchmarks.autograd`.

All contenders of a case take turns (see :mod:`benchmarks.timing`). The aim: an MLP at most 1.05 times torch's
time, a small CNN 1.10, x * y + sin(x) 1.0, a chain of 1000 scalar operations 1.2. The tables are printed and
written to ``benchmarks/results/autograd.md``.

The heap keeps what is freed. Otherwise glibc hands memory back at moments that depend on how the heap happens
to lie, and an iteration of a small CNN takes no page fault or 1,300, by torch or by us, by luck.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd

from .machine import Machine, this_machine, torch_threads
from .table import Table, three_digits
from .timing import Call, Pace, Samples, interleave, microseconds, ratio

AIMS = {"MLP 784-256-10": 1.05, "small CNN": 1.10, "x * y + sin(x)": 1.0, "chain of 1000": 1.2}
BATCH = 64
STEADY_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
RESULTS = Path(__file__).parent / "results"

# Torch's own, without the look for variables that our package puts before it.
by_torch: Any = torch.autograd.backward.__wrapped__  # type: ignore[attr-defined]


def of_module(model: nn.Module, *shape: int) -> dict[str, Call]:
    """Forward and backward of an unmodified module, by torch and by us."""
    inputs, labels = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))

    def theirs() -> None:
        model.zero_grad()
        by_torch(F.cross_entropy(model(inputs), labels))

    def ours() -> None:
        model.zero_grad()
        with autograd.record(model):
            loss = F.cross_entropy(model(inputs), labels)
        loss.backward()

    return {"torch": theirs, "ours": ours}


def mlp() -> dict[str, Call]:
    return of_module(nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)), 784)


def cnn() -> dict[str, Call]:
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, 10)),
    )
    return of_module(model, 1, 28, 28)


def scalar(program: Callable[..., Any], *values: float) -> dict[str, Call]:
    """A program of scalars, its leaves made anew each time."""
    tensors = [torch.tensor(value) for value in values]

    def theirs() -> None:
        by_torch(program(*[t.clone().requires_grad_() for t in tensors]))

    def ours() -> None:
        program(*[autograd.Variable(t) for t in tensors]).backward()

    return {"torch": theirs, "ours": ours}


def chain(x: Any) -> Any:
    for _ in range(1000):
        x = x * 1.0001
    return x


CASES: dict[str, Callable[[], dict[str, Call]]] = {
    "MLP 784-256-10": mlp,
    "small CNN": cnn,
    "x * y + sin(x)": lambda: scalar(lambda x, y: x * y + torch.sin(x), 2.0, 3.0),
    "chain of 1000": lambda: scalar(chain, 1.0),
}


# -- the same MLP in other small autograds, where they are installed


def numbers() -> dict[str, Any]:
    """Weights and data as float32 arrays."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (BATCH, 784), "w1": (784, 256), "b1": (256,), "w2": (256, 10), "b2": (10,)}
    values: dict[str, Any] = {
        name: (0.05 * torch.randn(shape, generator=generator)).numpy().copy()
        for name, shape in shapes.items()
    }
    return {**values, "labels": torch.randint(0, 10, (BATCH,), generator=generator).numpy().copy()}


def hips_autograd() -> Call:
    import autograd.numpy as np
    from autograd import grad

    v = numbers()

    def loss(w: Any) -> Any:
        scores = np.maximum(v["x"] @ w[0] + w[1], 0) @ w[2] + w[3]
        largest = np.max(scores, axis=1, keepdims=True)
        log_sum = np.log(np.sum(np.exp(scores - largest), axis=1)) + largest[:, 0]
        return np.mean(log_sum - scores[np.arange(BATCH), v["labels"]])

    gradient = grad(loss)
    return lambda: gradient([v[name] for name in ("w1", "b1", "w2", "b2")])


def mygrad() -> Call:
    import mygrad as mg
    from mygrad.nnet import relu, softmax_crossentropy

    v = numbers()
    w = [mg.tensor(v[name]) for name in ("w1", "b1", "w2", "b2")]

    def step() -> None:
        scores = mg.matmul(relu(mg.matmul(v["x"], w[0]) + w[1]), w[2]) + w[3]
        softmax_crossentropy(scores, v["labels"]).backward()

    return step


def tinygrad() -> Call:
    os.environ.setdefault("DEV", "CPU")
    from tinygrad import Tensor

    v = numbers()
    w = [Tensor(v[name]) for name in ("w1", "b1", "w2", "b2")]
    x, labels = (Tensor(v[name]).is_param_(False) for name in ("x", "labels"))

    def step() -> None:
        for each in w:
            each.grad = None
        scores = (x @ w[0] + w[1]).relu() @ w[2] + w[3]
        loss = scores.sparse_categorical_crossentropy(labels)
        loss.backward()
        Tensor.realize(loss, *[each.grad for each in w])

    return step


def micrograd() -> Call:
    """The chain, in Python's numbers. An MLP would be 13 million of its nodes, some minute a step."""
    from micrograd.engine import Value

    sys.setrecursionlimit(10_000)  # it walks back recursively
    return lambda: chain(Value(1.0)).backward()


# Who takes part in which case, if it is installed.
PEERS: dict[str, dict[str, Callable[[], Call]]] = {
    "MLP 784-256-10": {"autograd": hips_autograd, "mygrad": mygrad, "tinygrad": tinygrad},
    "chain of 1000": {"micrograd": micrograd},
}


def peers(case: str, left_out: dict[str, str]) -> dict[str, Call]:
    """The other autograds that can do this case here; why one cannot goes to ``left_out``."""
    found: dict[str, Call] = {}
    for name, make in PEERS.get(case, {}).items():
        if importlib.util.find_spec(name) is None:
            left_out[name] = "not installed"
            continue
        try:
            step = make()
            step()
        except Exception as error:  # installed, but not for this machine
            hint = " (on the CPU it needs clang)" if name == "tinygrad" else ""
            left_out[name] = f"{type(error).__name__}: {error}{hint}"
        else:
            found[name] = step
    return found


def row(case: str, contender: str, samples: Samples) -> list[str]:
    """A contender's line of the table, from samples that were taken beside torch's."""
    against = ratio(samples[contender], samples["torch"])
    quartiles = f"{against.lower:.2f} to {against.upper:.2f}"
    median = three_digits(microseconds(samples[contender]).median)
    aim = f"{AIMS[case]:.2f}" if contender == "ours" else ""
    return [case, contender, median, f"{against.median:.2f}", quartiles, aim]


def measure(seconds: float, rounds: int, threads: int, left_out: dict[str, str]) -> Table:
    """All cases with this many threads: medians in microseconds, and each contender's time by torch's."""
    rows = []
    # The peers compute with numpy, whose BLAS has threads of its own.
    with torch_threads(threads), threadpool_limits(threads):
        for name, make in CASES.items():
            torch.manual_seed(0)
            contenders, pace = make(), Pace(seconds=seconds, least_rounds=rounds)
            # Torch and we alone, in short rounds; then each of the others with torch.
            samples = interleave(contenders, pace)
            rows += [row(name, contender, samples) for contender in contenders]
            for peer, step in peers(name, left_out).items():
                rows.append(row(name, peer, interleave({"torch": contenders["torch"], peer: step}, pace)))
    return Table(
        f"Forward and backward, batch of {BATCH}, {threads} thread{'s' * (threads > 1)}",
        ["case", "contender", "median µs", "to torch's", "quartiles", "aim"],
        rows,
        "To torch's: the median over the rounds of a contender's time divided by torch's in the same round. "
        "The heap keeps what is freed.",
    )


def markdown(machine: Machine, tables: list[Table], left_out: Mapping[str, str]) -> str:
    parts = ["# The mini autograd on the CPU", machine.facts(), *(table.as_markdown() for table in tables)]
    if left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {name}: {why}" for name, why in left_out.items()))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each contender (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="at least, for each contender (default: 5)")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for autograd.md (default benchmarks/results; its subfolder partial for a shorter run)",
    )
    options = parser.parse_args()
    if not STEADY_HEAP.items() <= os.environ.items():  # read when a process starts: start again
        arguments = [sys.executable, "-m", "benchmarks.autograd", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, **STEADY_HEAP})
    machine = this_machine()
    left_out: dict[str, str] = {}
    tables = []
    for threads in sorted({1, torch.get_num_threads()}):
        tables.append(measure(options.seconds, options.rounds, threads, left_out))
        print(f"\n{tables[-1].as_text()}", flush=True)
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")
    shorter = options.seconds < parser.get_default("seconds")
    folder = options.out or (RESULTS / "partial" if shorter else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "autograd.md"
    path.write_text(markdown(machine, tables, left_out), encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
