"""Sparse gradients: SGD and Adagrad take them as torch's do, and touch no other row where they need not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc

from .helpers import ours, theirs


def embeddings(dtype: torch.dtype = torch.float64) -> list[nn.Embedding]:
    first = nn.Embedding(50, 4, sparse=True, dtype=dtype)
    second = nn.Embedding(50, 4, sparse=True, dtype=dtype)
    second.load_state_dict(first.state_dict())
    return [first, second]


@pytest.mark.parametrize(
    "engine", [{}, {"foreach": True}, {"fused": False}], ids=["default", "foreach", "eager"]
)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "dampening": 0.5, "nesterov": False, "maximize": True}),
        ("Adagrad", {}),
        ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ],
    ids=str,
)
def test_equals_torch(name: str, options: dict[str, Any], engine: dict[str, bool]) -> None:
    tables = embeddings()
    optimizers = [
        make(table.parameters(), lr=0.1, **options, **extra)
        for make, table, extra in zip((ours(name), theirs(name)), tables, (engine, {}), strict=True)
    ]
    for step in range(8):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, 50, (6,), generator=generator)  # some of them twice
        weights = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            (table(rows) * weights).sum().backward()
            assert table.weight.grad is not None
            assert table.weight.grad.is_sparse
            optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_other_rows_are_not_touched(name: str) -> None:
    """Not even read: NaN stands in them and stays there alone."""
    table, _ = embeddings()
    optimizer = ours(name)(table.parameters(), lr=0.1)
    with torch.no_grad():
        table.weight[7:] = float("nan")
    table(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    assert table.weight[:7].isfinite().all()
    assert table.weight[7:].isnan().all()
    assert "sparse" in optimizer.engine_report()


def test_dense_and_sparse_parameters_side_by_side() -> None:
    table, _ = embeddings(torch.float32)
    layer = nn.Linear(4, 2)
    optimizer = oc.SGD([*table.parameters(), *layer.parameters()], lr=0.1)
    layer(table(torch.tensor([1, 2]))).sum().backward()
    optimizer.step()
    lines = optimizer.engine_report().splitlines()
    assert len(lines) == 2
    assert any("fused CPU engine: 2 parameters" in line for line in lines)
    assert any("its gradient is sparse (first: parameter 0 of group 0)" in line for line in lines)


def test_a_checkpoint_with_torchs_sparse_velocity() -> None:
    tables = embeddings()
    optimizer, other = (
        make(table.parameters(), lr=0.1, momentum=0.9)
        for make, table in zip((oc.SGD, torch.optim.SGD), tables, strict=True)
    )
    for step in range(4):
        if step == 2:
            assert other.state[tables[1].weight]["momentum_buffer"].is_sparse
            optimizer.load_state_dict(other.state_dict())
            tables[0].load_state_dict(tables[1].state_dict())
        for table, runner in zip(tables, (optimizer, other), strict=True):
            runner.zero_grad()
            table(torch.tensor([step, 2 * step])).sum().backward()
            if runner is other or step >= 2:
                runner.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_others_refuse(name: str) -> None:
    table, twin = embeddings()
    for make, model in ((ours(name), table), (theirs(name), twin)):
        model(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match="sparse"):
            make(model.parameters()).step()


def test_adagrad_refuses_weight_decay_as_torch() -> None:
    for make in (oc.Adagrad, torch.optim.Adagrad):
        table, _ = embeddings()
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match=r"weight_decay.* not compatible with sparse gradients"):
            make(table.parameters(), weight_decay=0.1).step()
