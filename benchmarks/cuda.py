"""``python -m benchmarks.cuda``: one step on a GPU, ours against torch's loop, foreach and fused.

Each contender in turn takes a burst of steps and waits for the device at its end, so both launches and
kernels count, as in training, where nobody waits after each step. Writes ``results/cuda.json`` and
``results/cuda.md`` with the name of the device and the date; without a GPU it says so and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .timing import Call, Pace, interleave, microseconds
from .workloads import MODELS, OPTIMIZERS, OURS, ModelCase, OptimizerCase, elements

RESULTS = Path(__file__).parent / "results"
BURST = 10  # steps between two waits for the device


def billion_shapes() -> list[tuple[int, ...]]:
    """A transformer of 1.0 billion parameters: 20 blocks of width 2048."""
    width = 2048
    block = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width), (width,), (width,)]
    return block * 20


BILLION = ModelCase("billion", "1 B", billion_shapes, large=True)
CASES = {name: MODELS[name] for name in ("lenet", "many", "resnet18", "gpt2")} | {"billion": BILLION}


def main() -> None:
    options = _command_line().parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here: nothing was measured")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    bandwidth = copy_bandwidth(device, 1 << (28 if device.type == "cuda" else 22))
    rows = []
    for model in options.models:
        for optimizer in options.optimizers:
            row = measure(OPTIMIZERS[optimizer], CASES[model], device, options.seconds, bandwidth)
            rows.append(row)
            print(_line(row), flush=True)
    record = {
        "device": name,
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "copy_GB_per_s": bandwidth / 1e9,
        "rows": rows,
    }
    if device.type == "cuda":
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "cuda.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "cuda.md").write_text(_markdown(record))


def measure(
    optimizer: OptimizerCase, model: ModelCase, device: torch.device, seconds: float, bandwidth: float
) -> dict[str, Any]:
    """Microseconds of one step for each contender, and how many times longer torch's take.

    ``of_copy`` is ours: the bytes that a step must move, by the time it takes, as a share of a copy's rate.
    """
    names = optimizer.contenders()
    shapes = model.shapes()
    if model is BILLION:  # side by side they do not fit; one after the other
        samples: dict[str, Any] = {}
        for name in names:
            call = _burst(optimizer.build(name, _parameters(shapes, device)).step, device)
            samples |= interleave({name: call}, Pace(seconds / len(names), least_rounds=3))
            del call
    else:
        calls: dict[str, Call] = {
            name: _burst(optimizer.build(name, _parameters(shapes, device)).step, device) for name in names
        }
        samples = dict(interleave(calls, Pace(seconds, least_rounds=5)))
    times = {name: microseconds(samples[name]).median / BURST for name in names}
    moved = elements(shapes) * optimizer.bytes_per_element
    return {
        "optimizer": optimizer.name,
        "model": model.title,
        "elements": elements(shapes),
        "microseconds": times,
        "ratios": {name: times[name] / times[OURS] for name in names if name != OURS},
        "of_copy": moved / (times[OURS] * 1e-6) / bandwidth,
    }


def copy_bandwidth(device: torch.device, n: int) -> float:
    """Bytes a second of ``b.copy_(a)``, reading and writing counted, the best of several."""
    a, b = torch.ones(n, device=device), torch.empty(n, device=device)
    best = 0.0
    for _ in range(10):
        _wait(device)
        start = time.perf_counter()
        for _ in range(5):
            b.copy_(a)
        _wait(device)
        best = max(best, 5 * 2 * a.nbytes / (time.perf_counter() - start))
    return best


def _burst(step: Callable[[], object], device: torch.device) -> Call:
    def burst() -> None:
        for _ in range(BURST):
            step()
        _wait(device)

    return burst


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parameters(shapes: list[tuple[int, ...]], device: torch.device) -> list[Tensor]:
    params: list[Tensor] = []
    for shape in shapes:
        param = nn.Parameter(torch.rand(shape, device=device))
        param.grad = torch.full(shape, 1e-2, device=device)
        params.append(param)
    return params


def _line(row: dict[str, Any]) -> str:
    ratios = "  ".join(f"{name} / ours {value:5.2f}" for name, value in row["ratios"].items())
    times = row["microseconds"][OURS]
    return (
        f"{row['model']:20} {row['optimizer']:9} ours {times:9.1f} us  {ratios}  {row['of_copy']:.0%} of copy"
    )


def _markdown(record: dict[str, Any]) -> str:
    lines = [
        f"# One step on {record['device']}, {record['date']}",
        "",
        f"torch {record['torch']}; `python -m benchmarks.cuda`. Ratios are torch's time by ours; a copy moves"
        f" {record['copy_GB_per_s']:.0f} GB/s.",
        "",
        "| model | optimizer | ours, microseconds | default | foreach | fused | of copy bandwidth |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        ratios = [
            f"{row['ratios'][n]:.2f}" if n in row["ratios"] else "-" for n in ("default", "foreach", "fused")
        ]
        cells = [
            row["model"],
            row["optimizer"],
            f"{row['microseconds'][OURS]:.0f}",
            *ratios,
            f"{row['of_copy']:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--seconds", type=float, default=3.0, help="for all contenders of a case together")
    parser.add_argument("--device", default="cuda", help="`cpu` tries the script; nothing is written then")
    return parser


if __name__ == "__main__":
    main()
