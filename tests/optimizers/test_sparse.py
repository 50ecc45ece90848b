"""Sparse gradients: SGD and Adagrad take them as torch's do, and touch no other row where they need not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import torchopt_course as oc

from ..helpers import ENGINES, ours, theirs


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


@pytest.mark.parametrize("engine", [{}, *ENGINES.values()], ids=["default", *ENGINES])
@pytest.mark.parametrize("options", [{}, {"dampening": 0.5}, {"nesterov": True}, {"maximize": True}], ids=str)
def test_a_checkpoint_with_torchs_sparse_velocity(options: dict[str, Any], engine: dict[str, bool]) -> None:
    """There and back: torch keeps the velocity sparse, we dense, and each goes on with the other's.

    But for Nesterov's: torch cannot add a dense velocity to a sparse gradient.
    """
    tables = embeddings()
    optimizer, other = (
        make(table.parameters(), lr=0.1, momentum=0.9, **options, **extra)
        for make, table, extra in zip((oc.SGD, torch.optim.SGD), tables, (engine, {}), strict=True)
    )
    asked = optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["foreach"]
    for step in range(4 if "nesterov" in options else 6):
        if step == 2:
            assert other.state[tables[1].weight]["momentum_buffer"].is_sparse
            optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
            optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["foreach"] = asked
            tables[0].load_state_dict(tables[1].state_dict())
        if step == 4:
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            other.param_groups[0].update(fused=None, foreach=None)
        for table, runner in zip(tables, (optimizer, other), strict=True):
            runner.zero_grad()
            table(torch.tensor([step, 2 * step])).sum().backward()
            if runner is other or step >= 2:
                runner.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("engine", [{}, {"foreach": True}, {"fused": False}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"maximize": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_sparse_parameters(layout: str, options: dict[str, Any], engine: dict[str, bool]) -> None:
    """A sparse matrix of weights, as of a graph, whose gradient is as sparse."""
    start = torch.randn(4, 4, dtype=torch.float64) * torch.eye(4, dtype=torch.float64).roll(1, 0)
    mine, reference = (nn.Parameter(start.clone().to_sparse(layout=getattr(torch, layout))) for _ in range(2))
    optimizer, other = (
        oc.SGD([mine], lr=0.1, **options, **engine),
        torch.optim.SGD([reference], lr=0.1, **options),
    )
    for step in range(4):
        features = torch.full((4, 2), step + 1.0, dtype=torch.float64)
        for param, each in ((mine, optimizer), (reference, other)):
            each.zero_grad()
            torch.sparse.mm(param, features).square().sum().backward()
            each.step()
    assert mine.layout == reference.layout
    torch.testing.assert_close(
        mine.detach().to_dense(), reference.detach().to_dense(), rtol=1e-12, atol=1e-12
    )
    assert (mine.detach().to_dense() != 0).sum() == 4
    loaded = oc.SGD([mine], lr=0.1, **options)
    loaded.load_state_dict(other.state_dict())
    loaded.state.update({mine: {name: value.clone() for name, value in loaded.state[mine].items()}})
    for param, each in ((mine, loaded), (reference, other)):
        param.grad = param.detach().clone()
        each.step()
    torch.testing.assert_close(
        mine.detach().to_dense(), reference.detach().to_dense(), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam"])
def test_sparse_parameters_of_others(name: str) -> None:
    for make in (ours(name), theirs(name)):
        param = nn.Parameter(torch.eye(3).to_sparse())
        param.grad = torch.eye(3).to_sparse()
        with pytest.raises(RuntimeError):
            make([param]).step()


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW"])
def test_others_refuse(name: str) -> None:
    table, twin = embeddings()
    for make, model in ((ours(name), table), (theirs(name), twin)):
        name = "Adam" if make is torch.optim.AdamW else name
        model(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match=f"{name} does not support sparse gradients") as raised:
            make(model.parameters()).step()
        assert name == "RMSprop" or "please consider SparseAdam instead" in str(raised.value)


def test_adagrad_refuses_weight_decay_as_torch() -> None:
    for make in (oc.Adagrad, torch.optim.Adagrad):
        table, _ = embeddings()
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(RuntimeError, match=r"weight_decay.* not compatible with sparse gradients"):
            make(table.parameters(), weight_decay=0.1).step()
