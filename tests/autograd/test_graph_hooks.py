"""``torch.autograd.graph``: hooks of several values are as torch's, hooks on what is saved are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import graph
from torch.nn import functional as F

from torchopt_course import autograd as ag
from torchopt_course.autograd.traced import recording

from .agreement import Make, assert_as_in_torch


def _seen(seen: list[Any]) -> Callable[[Any], None]:
    return lambda gs: seen.extend(None if g is None else g.clone() for g in gs)


def all_that_are_reached(make: Make) -> list[Any]:
    """A leaf, results, one that nothing depends on; twice, with another part of them."""
    x, seen = make(1.0, 2.0), []
    h, unused = x * x, x * 2
    k = h.exp()
    handle = graph.register_multi_grad_hook((x, h, unused, k), _seen(seen))
    k.sum().backward(retain_graph=True)
    (h * x).sum().backward(retain_graph=True)
    handle.remove()
    k.sum().backward()
    return seen


def the_first_alone(make: Make) -> list[Any]:
    x, seen = make(1.0, 2.0), []
    h = x * x
    k = h.exp()
    graph.register_multi_grad_hook((h, k), lambda g: seen.append(g.clone()), mode="any")
    k.sum().backward(retain_graph=True)
    h.sum().backward()
    return seen


def a_pass_within_the_hook(make: Make) -> list[Any]:
    x, y, seen = make(1.0, 2.0), make(3.0, 4.0), []
    h, k = x * x, y * y

    def once_more(gs: Any) -> None:
        seen.append(torch.is_grad_enabled())
        seen.extend(g.clone() for g in gs)
        with torch.enable_grad():
            (y * y * y).sum().backward()

    graph.register_multi_grad_hook((h, k), once_more)
    (h * k).sum().backward()
    return [*seen, x.grad, y.grad]


def an_error_on_the_way(make: Make) -> list[Any]:
    x, seen, fails = make(1.0, 2.0), [], [True]
    h = x * x
    k = h.exp()

    def fail(g: Any) -> None:
        if fails:
            raise ValueError("now")

    h.register_hook(fail)
    graph.register_multi_grad_hook((h, k), _seen(seen))
    with pytest.raises(ValueError, match="now"):
        k.sum().backward(retain_graph=True)
    fails.clear()
    k.sum().backward()
    return seen


@pytest.mark.parametrize(
    "program",
    [all_that_are_reached, the_first_alone, a_pass_within_the_hook, an_error_on_the_way],
    ids=lambda f: f.__name__,
)
def test_hooks_of_several_values(program: Callable[[Make], list[Any]]):
    assert_as_in_torch(program)


def test_of_parameters_within_the_block():
    model, seen = nn.Linear(2, 1), []
    with ag.record(model):
        graph.register_multi_grad_hook(list(model.parameters()), _seen(seen))
        model(torch.ones(3, 2)).sum().backward()
    assert [g.tolist() for g in seen] == [[[3.0, 3.0]], [3.0]]


def test_also_inside_of_a_transform_and_where_a_graph_is_drawn():
    x, seen = torch.tensor([1.0, 2.0], dtype=torch.float64), list[Any]()

    def program(x: Any) -> Any:
        h, k = x * x, x.exp()
        graph.register_multi_grad_hook((h, k), _seen(seen))
        return (3 * h + h * k).sum()

    found = ag.grad(program)(x)
    torch.testing.assert_close(found, 6 * x + (2 * x + x * x) * x.exp())
    torch.testing.assert_close(seen, [3 + x.exp(), x * x])
    seen.clear()
    ag.graph(program(ag.Variable(x)), gradients=True)
    torch.testing.assert_close(seen, [3 + x.exp(), x * x])


def test_a_pass_of_torchs_alone_over_a_part_of_them_is_an_error():
    x, y = torch.ones(2, requires_grad=True), ag.Variable(torch.ones(2)) * 2
    graph.register_multi_grad_hook((x, y), lambda gs: None)
    with pytest.raises(RuntimeError, match="torch's alone"):
        (x * 2).sum().backward()


def _packed(x: Tensor) -> Tensor:
    return x.half()


def _unpacked(x: Tensor) -> Tensor:
    return x.double()


@pytest.mark.parametrize("pack", [_packed, F.relu, torch.relu])
def test_what_is_saved_is_not_packed_without_a_word(pack: Callable[[Tensor], Tensor]):
    with graph.saved_tensors_hooks(pack, _unpacked):
        with pytest.raises(NotImplementedError, match="saved_tensors_hooks"), ag.record():
            pass
        assert not recording.blocks
    with ag.record(), pytest.raises(NotImplementedError, match="saved_tensors_hooks"):  # noqa: SIM117
        with graph.saved_tensors_hooks(pack, _unpacked):
            pass


@pytest.mark.parametrize("pack", [_packed, F.relu])
def test_nor_is_it_for_variables_outside_of_any_block(pack: Callable[[Tensor], Tensor]):
    x = ag.Variable([1.0, 2.0])
    refused = pytest.raises(NotImplementedError, match="saved_tensors_hooks")
    with graph.saved_tensors_hooks(pack, _unpacked):
        with refused:
            x * x
        with refused:
            ag.grad(lambda y: (y * y).sum())(torch.ones(2))
        with torch.no_grad():  # where nothing is saved
            assert (x * x).tolist() == [1, 4]
        with graph.saved_tensors_hooks(lambda y: y, lambda y: y):
            pass
        with refused:
            x + x
    with graph.save_on_cpu():
        (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]

    def within(y: Any) -> Any:
        with graph.saved_tensors_hooks(pack, _unpacked):
            return (y * y).sum()

    with refused:
        ag.grad(within)(torch.ones(2))


def test_other_threads_have_no_hooks():
    x, results = ag.Variable(3.0), []

    def work() -> None:
        (x * x).backward()
        results.append(x.grad.item())

    with graph.saved_tensors_hooks(_packed, _unpacked):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert results == [6]


@pytest.mark.parametrize(
    "block", [graph.save_on_cpu, lambda: graph.disable_saved_tensors_hooks("no"), nullcontext]
)
@pytest.mark.parametrize("inside", [True, False])
def test_torchs_own_only_move_what_is_saved(block: Callable[[], Any], inside: bool):
    x = torch.tensor(2.0, requires_grad=True)
    first, second = (ag.record, block) if inside else (block, ag.record)
    with first(), second():
        loss = x**3
    loss.backward()
    assert x.grad == 12


def test_an_error_on_the_way_changes_no_gradient():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with ag.record(model):
        h = model[0](torch.ones(1, 2))
        loss = model[1](h).sum()
    h.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("bad", range(3))
def test_nor_does_one_of_a_leaf_s_hook_or_of_several_values(bad: int, inside: bool, several: bool):
    leaves = [torch.ones(2, requires_grad=True) if inside else ag.Variable([1.0, 1.0]) for _ in range(3)]
    with ag.record() if inside else nullcontext():
        h = leaves[bad] * 2
        loss = h.sum() + sum((x * x).sum() for x in leaves)
    if several:
        graph.register_multi_grad_hook([h, leaves[0]], lambda gs: 1 / 0)
    else:
        leaves[bad].register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    assert all(x.grad is None for x in leaves)


def test_an_edge_of_torchs_graph_is_torchs():
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    with ag.record():
        assert graph.get_gradient_edge(p) == graph.get_gradient_edge(p)
        with pytest.raises(NotImplementedError, match=r"get_gradient_edge.* of a variable"):
            graph.get_gradient_edge(p * 2)
