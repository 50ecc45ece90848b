"""Scenarios of distributed checkpoints: what four processes saved goes on in two, in the same trajectory."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from .networks import (
    KINDS,
    MODULES,
    OPTIONS,
    STEPS,
    assert_close,
    assert_fused,
    assert_moved,
    assert_same,
    network,
    train,
    whole,
)


def save(kind: str, optimizer_name: str, directory: Path) -> None:
    """Train, save, go on: torch's end is what those who load must reach."""
    prepare, share, how = KINDS[kind]
    runs = []
    for by, module in MODULES.items():
        model = prepare(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=share)
        state = get_state_dict(model, optimizer, options=how)
        dcp.save(
            dict(zip(("model", "optimizer"), state, strict=True)),
            checkpoint_id=directory / f"{kind}-{optimizer_name}-{by}",
        )
        train(model, optimizer, range(STEPS, 2 * STEPS), share=share)
        runs += [model, optimizer]
    end = whole(runs[2])
    assert_moved(end)
    if dist.get_rank() == 0:
        torch.save(end, directory / f"{kind}-{optimizer_name}.pt")
    assert_same(*runs)
    assert_fused(runs[1])


def load(kind: str, optimizer_name: str, saved_by: str, loaded_by: str, directory: Path) -> None:
    """What four processes saved goes on in two, in the same trajectory."""
    prepare, share, how = KINDS[kind]
    model = prepare(network())
    optimizer = getattr(MODULES[loaded_by], optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer, options=how), strict=True))
    dcp.load(state, checkpoint_id=directory / f"{kind}-{optimizer_name}-{saved_by}")
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=how,
    )
    train(model, optimizer, range(STEPS, 2 * STEPS), share=share)
    got, expected = whole(model), torch.load(directory / f"{kind}-{optimizer_name}.pt")
    for name, value in expected.items():
        assert_close(got[name], value, name)
    if loaded_by == "ours":
        assert_fused(optimizer)
