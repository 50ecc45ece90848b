"""What 16-bit states and ways of rounding cost and save: ``python -m benchmarks.storage``.

Adam's step on 30 million elements, in turns with torch's fused Adam with float32 states, for one and two
threads; bytes as the tensors say. And the memory of a training step of a small transformer, with gradients
that wait for ``optimizer.step()`` and with gradients that are released. Writes two tables into
``benchmarks/results``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

import torchopt_course as oc

from .machine import this_machine
from .timing import Pace, interleave, ratio, spread

RESULTS = Path(__file__).parent / "results"
TENSORS, ELEMENTS = 10, 3_000_000
B, F = torch.bfloat16, torch.float32
# What it is called, the dtype of parameters and gradients, and Adam's options.
CASES: list[tuple[str, torch.dtype, dict[str, Any]]] = [
    ("float32", F, {}),
    ("float32, states bfloat16", F, {"state_dtype": B}),
    ("float32, states bfloat16, stochastic", F, {"state_dtype": B, "rounding": "stochastic"}),
    ("float32, states bfloat16, Kahan", F, {"state_dtype": B, "rounding": "kahan"}),
    ("bfloat16, states float32", B, {"state_dtype": F}),
    ("bfloat16", B, {"rounding": "nearest"}),
    ("bfloat16, stochastic", B, {"rounding": "stochastic"}),
    ("bfloat16, Kahan", B, {"rounding": "kahan"}),
]
PACE = Pace(seconds=3.5, least_rounds=5)


def optimizer_of(make: Any, dtype: torch.dtype, **options: Any) -> Any:
    params = [Parameter(torch.ones(ELEMENTS, dtype=dtype)) for _ in range(TENSORS)]
    for param in params:
        param.grad = torch.full_like(param, 1e-3)
    return make(params, **options)


def state_bytes(optimizer: Any) -> float:
    """For each element."""
    states = [s for own in optimizer.state.values() for name, s in own.items() if name != "step"]
    return float(sum(state.nbytes for state in states)) / (TENSORS * ELEMENTS)


def step_table() -> str:
    lines = [
        "| parameters and gradients | bytes of states | 1 thread, ms | of torch fused | 2 threads, ms "
        "| of torch fused |",
        "|---|---|---|---|---|---|",
    ]
    for label, dtype, options in CASES:
        mine = optimizer_of(oc.Adam, dtype, **options)
        theirs = optimizer_of(torch.optim.Adam, F, fused=True)
        cells = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            samples = interleave({"mine": mine.step, "theirs": theirs.step}, PACE)
            time = spread(n / 1e6 for turn in samples["mine"] for n in turn)
            cells += [f"{time.median:.1f}", f"{ratio(samples['mine'], samples['theirs']).median:.2f}"]
        lines.append(f"| {label} | {state_bytes(mine):.0f} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def transformer() -> nn.Module:
    """88 million parameters, most of them in 7 layers."""
    layer = nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 7, enable_nested_tensor=False)


def peak(how: str) -> None:
    """Print the most memory that a few steps of a training have taken, weights included, in MB."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Compilers need memory too, once: they come first, and are not counted.
    train(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1), how, 8, steps=60)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    train(transformer(), how, 1024, steps=3)
    print(_memory("VmHWM") - before)


def _memory(what: str) -> float:
    """Of this process, in MB, as Linux says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def train(model: nn.Module, how: str, width: int, steps: int) -> None:
    if "bfloat16 states" in how:
        optimizer = oc.Adam(model.parameters(), state_dtype=B)
    else:
        optimizer = oc.Adam(model.parameters())
    if "released" in how:
        oc.release_gradients(model, optimizer)
    for _ in range(steps):
        model(torch.randn(1, 32, width)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def memory_table() -> str:
    count = sum(param.numel() for param in transformer().parameters())
    lines = ["| gradients, states | peak memory of the training, MB |", "|---|---|"]
    for how in ("wait, float32", "released, float32", "wait, bfloat16 states", "released, bfloat16 states"):
        command = [sys.executable, "-m", "benchmarks.storage", "--peak", how]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        lines.append(f"| {how} | {float(result.stdout):,.0f} |")
        print(lines[-1], flush=True)
    return (
        f"A transformer of {count / 1e6:.0f} million float32 parameters, Adam, three steps.\n\n"
        + "\n".join(lines)
    )


PARTS = {
    "storage": (f"Adam's step on {TENSORS * ELEMENTS / 1e6:.0f} million elements", step_table),
    "released_gradients": ("Gradients that are released in the backward pass", memory_table),
}


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2])
        return
    for part in sys.argv[1:] or PARTS:
        title, table = PARTS[part]
        source = f"`python -m benchmarks.storage {part}` wrote this."
        text = f"# {title}\n\n{this_machine().facts()}\n\n{table()}\n\n{source}\n"
        (RESULTS / f"{part}.md").write_text(text)


if __name__ == "__main__":
    main()
