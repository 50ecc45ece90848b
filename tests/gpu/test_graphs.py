"""Steps in a CUDA graph, recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import torchopt_course as oc
from recipes.zoo import LAMB

from ..helpers import ours, set_gradients, theirs
from .twins import DEVICE, clipped, twins

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]


def demanding(optimizer: Any) -> Any:
    """``fused=True``: steps are counted on the device."""
    optimizer.param_groups[0]["fused"] = True
    return optimizer


GRAPHS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    **{
        name: (
            lambda params, name=name: ours(name)(params, lr=0.01, capturable=True),
            lambda params, name=name: theirs(name)(params, lr=0.01, foreach=False),
        )
        for name in ("RMSprop", "Adam", "AdamW")
    },
    "SGD": (
        lambda params: oc.SGD(params, 0.01, momentum=0.9),
        lambda params: torch.optim.SGD(params, 0.01, momentum=0.9, foreach=False),
    ),
    "Adagrad, fused": (
        lambda params: oc.Adagrad(params, 0.01, fused=True),
        lambda params: torch.optim.Adagrad(params, 0.01, foreach=False),
    ),
    "LAMB, fused": (lambda p: demanding(LAMB(p, lr=0.01)), lambda p: LAMB(p, lr=0.01)),
    "clipped": (
        lambda p: clipped(p, lr=0.01, capturable=True),
        lambda p: clipped(p, lr=0.01, fused=False),
    ),
}


def test_a_graph_that_would_stand_still_is_refused() -> None:
    (params,) = twins(1)
    optimizer = LAMB(params)
    set_gradients(0, params)
    optimizer.step()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match=r"LAMB, but the step count of .* is on the CPU"):  # noqa: SIM117
        with torch.cuda.graph(graph):
            optimizer.step()
    optimizer.step()
    assert optimizer.state[params[0]]["step"].item() == 2


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_replays_the_step(name: str) -> None:
    make, make_other = GRAPHS[name]
    mine, reference = twins(dtype=torch.float64)
    optimizer, other = make(mine), make_other(reference)
    gradients = [torch.zeros_like(param) for param in mine]
    for param, grad in zip(mine, gradients, strict=True):
        param.grad = grad

    def give(step: int) -> None:
        set_gradients(step, reference)
        for grad, twin in zip(gradients, reference, strict=True):
            grad.copy_(twin.grad)  # type: ignore[arg-type]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for step in range(3):
            give(step)
            optimizer.step()
            other.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for step in range(3, 8):
        give(step)
        graph.replay()
        other.step()
    assert "CUDA" in optimizer.engine_report()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-9, atol=1e-11)
        if "step" in other.state[twin]:
            assert optimizer.state[param]["step"].item() == 8
    # And goes on by itself.
    for step in range(8, 10):
        give(step)
        optimizer.step()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-9, atol=1e-11)


def test_a_graph_reads_a_rate_that_is_a_tensor() -> None:
    mine, reference = twins(dtype=torch.float64)
    lr = torch.tensor(0.1, device=DEVICE, dtype=torch.float64)
    optimizer = oc.Adam(mine, lr=lr, capturable=True)
    other = torch.optim.Adam(reference, lr=0.1, foreach=False)
    set_gradients(0, mine, reference)
    for _ in range(2):
        optimizer.step()
        other.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for rate in (0.05, 0.02):
        lr.fill_(rate)
        other.param_groups[0]["lr"] = rate
        graph.replay()
        other.step()
    for param, twin in zip(mine, reference, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-9, atol=1e-11)
