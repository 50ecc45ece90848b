"""Hooks on a leaf's AccumulateGrad node, which torch's own engine calls: the same as without ``record``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchopt_course import autograd


def accumulator(p: Tensor) -> Any:
    """The node that adds to ``p.grad``; it lives as long as somebody keeps it."""
    return p.expand_as(p).grad_fn.next_functions[0][0]


def post(node: Any, log: list[Any], p: Tensor) -> Any:
    return node.register_hook(lambda _, gs: log.append((gs[0].clone(), p.grad.clone())))


def pre(node: Any, log: list[Any], p: Tensor) -> Any:
    return node.register_prehook(lambda gs: log.append(gs[0].clone()) or (3 * gs[0],))


def two_steps(register: Callable[..., Any], block: Callable[[], Any], late: bool) -> list[Any]:
    """A backward pass without, one with the hook, and one after it was removed; other hooks go on."""
    torch.manual_seed(0)
    log: list[Any] = []
    w, b = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(3))
    node = accumulator(w)
    w.register_hook(lambda g: 2 * g)
    w.register_post_accumulate_grad_hook(lambda p: log.append(p.grad.clone()))
    x = torch.randn(4, 2)
    for step in range(3):
        if step == 1 and not late:
            handle = register(node, log, w)
        with block():
            y = nn.functional.linear(x, w, b).square().mean() + w.square().sum()
        if step == 1 and late:
            handle = register(node, log, w)
        elif step == 2:
            handle.remove()
        y.backward()
        log += [w.grad.clone(), b.grad.clone()]
    return log


@pytest.mark.parametrize("register", [post, pre])
@pytest.mark.parametrize("late", [False, True])
def test_hooks_of_an_accumulator_are_called(register: Callable[..., Any], late: bool):
    theirs = two_steps(register, contextlib.nullcontext, late)
    ours = two_steps(register, autograd.record, late)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["all", "any"])
def test_a_hook_of_several_tensors_is_called_once(mode: Any):
    def seen(block: Callable[[], Any]) -> list[Any]:
        a, b = (torch.tensor(x, requires_grad=True) for x in (2.0, 3.0))
        log: list[Any] = []
        torch.autograd.graph.register_multi_grad_hook([a, b], log.append, mode=mode)
        with block():
            y = a * b * b
        y.backward()
        return [a.grad, b.grad, len(log), *(log[0] if mode == "all" else ())]

    assert seen(autograd.record) == seen(contextlib.nullcontext)


def test_a_hook_on_one_leaf_leaves_others_alone_and_is_refused_where_it_cannot_be_called():
    v, w, log = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0)), []
    node = accumulator(w)
    post(node, log, w)
    with autograd.record():
        y = v * v
    y.backward(create_graph=True)
    assert v.grad == 4
    assert v.grad.grad_fn is not None
    with autograd.record():
        y = v * w * w
    with pytest.raises(NotImplementedError, match="has hooks that the engine calls"):
        y.backward(create_graph=True)
    with autograd.record():
        (g,) = torch.autograd.grad(v * w * w, [w])  # adds nothing, so nobody is called, as in torch
    assert g == 12
    assert not log


def test_a_tensor_is_looked_at_again_after_any_hook_was_registered_and_else_not(
    monkeypatch: pytest.MonkeyPatch,
):
    from torchopt_course.autograd import accumulation

    looked = []
    look = accumulation._look
    monkeypatch.setattr(accumulation, "_look", lambda p: looked.append(p) or look(p))
    w = nn.Parameter(torch.tensor(3.0))
    other = torch.ones((), requires_grad=True)

    def step() -> int:
        looked.clear()
        with autograd.record():
            y = w * w
        y.backward()
        return len(looked)

    step()
    assert step() == 0
    other.register_hook(print)
    assert (step(), step()) == (1, 0)
