"""What users of torch try with a tensor, and should work with a variable alike or say what to do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable


def test_a_shallow_copy_is_a_leaf_of_the_same_memory():
    copies = []
    for x in (torch.ones(3, requires_grad=True), Variable(torch.ones(3))):
        x.tag, x.grad = "mine", torch.ones(3)  # type: ignore[attr-defined]
        for original in (x, x * 2):
            copied = copy.copy(original)
            assert copied is not original
            assert copied.data_ptr() == original.data_ptr()
            (copied * 3).sum().backward()
            tag = getattr(copied, "tag", None)
            copies.append((copied.is_leaf, copied.requires_grad, copied.grad.tolist(), tag))
        assert x.grad.tolist() == [1, 1, 1]
    assert copies[2:] == copies[:2]


def test_inside_of_a_transform_there_is_no_copy_without_the_past():
    with pytest.raises(RuntimeError, match=r"use x\.clone"):
        ag.grad(lambda x: copy.copy(x).sum())(torch.ones(2))


def test_hooks_of_an_operation_say_what_to_use():
    with pytest.raises(AttributeError, match=r"no 'register_hook'.*variable.register_hook"):
        (Variable(1.0) * 2).grad_fn.register_hook(print)  # type: ignore[union-attr]


@pytest.mark.slow  # torch's compiler takes its time
def test_what_is_compiled_meets_variables():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten())
    reference, x = copy.deepcopy(model), torch.randn(2, 1, 5, 5)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        with ag.record(compiled):
            loss = compiled(x).square().sum()
        loss.backward()
        reference(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)

    function = torch.compile(lambda x: x.mul_(2) * x.sin(), backend="eager")
    results = []
    for leaf in (torch.ones(3, requires_grad=True), Variable(torch.ones(3))):
        function(leaf * 1).sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(results[1], results[0])
    assert ag.jvp(torch.compile(torch.sin, backend="eager"), (x,), (x,))[1].equal(x.cos() * x)
