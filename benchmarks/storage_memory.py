"""The peak memory of a training, with gradients that wait for the step and gradients that are released.

``python -m benchmarks.storage_memory "released, float32"`` prints it in MB, each way in a process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

import torchopt_course as oc

HOW = ("wait, float32", "released, float32", "wait, states bfloat16", "released, states bfloat16")


def peak_of(how: str) -> float:
    """MB that a process has taken at most for a few steps of a training, weights included."""
    command = [sys.executable, "-m", "benchmarks.storage_memory", how]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def transformer() -> nn.Module:
    """88 million parameters, most of them in 7 layers."""
    layer = nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 7, enable_nested_tensor=False)


def train(model: nn.Module, how: str, width: int, steps: int) -> None:
    dtype = torch.bfloat16 if "bfloat16" in how else None
    optimizer = oc.Adam(model.parameters(), state_dtype=dtype)
    if how.startswith("released"):
        oc.release_gradients(model, optimizer)
    for _ in range(steps):
        model(torch.randn(1, 32, width)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def memory(what: str) -> float:
    """Of this process, in MB, as Linux says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def main(how: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Compilers need memory too, once: they come first, and are not counted.
    train(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1), how, 8, steps=60)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    train(transformer(), how, 1024, steps=3)
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1])
