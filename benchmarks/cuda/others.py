"""What else is measured: ways of storing, rules that reduce, and what a first step takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import torch

from ..fresh_process import ROOT
from ..reductions import COMPARISONS
from ..storage_case import FULL, WAYS, bytes_of_states, side_by_side
from ..timing import Pace
from ..workloads import OURS, elements
from .blocks import block_of, in_turns
from .models import alone, parameters
from .record import Row

STORING, WHOLE_TENSORS, FIRST_STEP = "storing", "whole tensors", "first step"
THEIRS = "theirs"
CACHES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")


def storing(way: str, device: torch.device, seconds: float) -> Row:
    """Adam's step in one way of storing beside torch's fused one with everything in float32."""
    torch.manual_seed(0)
    model = alone("gpt2", device)
    shapes = model.shapes()
    optimizer, steps = side_by_side(WAYS[way], FULL, shapes, device)
    blocks = {OURS: block_of(device, optimizer.step), "fused": block_of(device, steps["theirs"])}
    row = Row(STORING, model.title, way, elements(shapes))
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.02), least=3, most=50))
    row.engine = optimizer.engine_report()
    row.numbers["bytes of states"] = bytes_of_states(optimizer) / row.elements
    return row


def whole_tensors(name: str, model_name: str, device: torch.device, seconds: float) -> Row:
    """A rule with numbers of whole tensors beside somebody else's, or by itself if that is not installed."""
    torch.manual_seed(0)
    comparison, model = COMPARISONS[name], alone(model_name, device)
    shapes = model.shapes()
    params = parameters(shapes, device)
    step = comparison.ours(params)
    blocks = {OURS: block_of(device, step)}
    row = Row(WHOLE_TENSORS, model.title, comparison.label, elements(shapes))
    try:
        blocks[THEIRS] = block_of(device, comparison.theirs(params))
    except ImportError as error:
        row.notes.append(f"{error.name} is not installed")
    row.fill(in_turns(blocks, Pace(seconds, 5, turn_seconds=0.02), least=3, most=50))
    row.engine = step.__self__.engine_report()  # type: ignore[attr-defined]
    return row


def first_step(device: torch.device) -> Row:
    """Seconds of Adam's first step on LeNet in a process, with and without caches of compiled code."""
    row = Row(FIRST_STEP, "LeNet", "Adam")
    with tempfile.TemporaryDirectory() as empty:
        for name in ("first step ever s", "first step of the next process s"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.first_step", device.type],
                cwd=ROOT,
                env={**os.environ, **dict.fromkeys(CACHES, empty)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=50,
            )
            row.numbers[name] = float(done.stdout)
    return row
