"""What users of torch try with a tensor, and should work with a variable alike or say what to do."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


@pytest.mark.parametrize("name", ["hardswish", "hardsigmoid", "mish", "group_norm", "rms_norm"])
def test_half_precision_is_rounded_once_as_in_torch(name: str):
    """Under autocast inputs are halves and weights are not: mobilenet_v3 and wav2vec2 are made of these."""
    how = {
        "group_norm": lambda x, w: F.group_norm(x, 2, w, w),
        "rms_norm": lambda x, w: F.rms_norm(x.mT, (4,), w),
    }
    function = how.get(name, lambda x, w: getattr(F, name)(4 * x) * w.mean())
    torch.manual_seed(0)
    x, w, results = torch.randn(2, 4, 50).bfloat16(), torch.randn(4), []
    for made in (lambda t: t.clone().requires_grad_(), lambda t: Variable(t.clone())):
        a, b = made(x), made(w)
        y = function(a, b)
        y.float().square().sum().backward()
        results.append([y.detach(), a.grad, b.grad])
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_no_rows_is_torch_s_nan():
    for target in (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)):
        for x in (torch.zeros(0, 3, requires_grad=True), Variable(torch.zeros(0, 3))):
            assert F.cross_entropy(x, target).isnan()


def test_of_nothing_it_is_as_in_torch():
    """Attention of no features, no values, no heads; probabilities of no classes; the blocks of no pixels."""
    attention = F.scaled_dot_product_attention
    shapes = [(3 * ((2, 3, 0),), {}), (((0, 3, 8), (0, 6, 8), (0, 6, 8)), {"enable_gqa": True}),
              (((3, 8), (4, 0, 8), (4, 0, 8)), {}), (((2, 3, 0), (2, 3, 0), (2, 3, 2)), {})]  # fmt: skip
    programs = [
        *[([torch.rand(s) for s in each], partial(attention, **how)) for each, how in shapes],
        *[([torch.rand(2, 0)], lambda x, r=r: F.cross_entropy(x, torch.zeros(2, 0), reduction=r))
          for r in ("none", "mean", "sum")],
        ([torch.rand(0, 1, 4, 4)], lambda x: F.pixel_unshuffle(x, 2)),
    ]  # fmt: skip
    for inputs, program in programs:
        y, mine = (program(*[make(x.clone()) for x in inputs]) for make in (Tensor.requires_grad_, Variable))
        assert str(mine.detach()) == str(y.detach())
    x = torch.zeros(0, 3)
    assert ag.jvp(torch.var, (x,), (x,))[1] == 0


def test_cross_entropy_of_logits_has_the_dtype_of_its_targets():
    for logits, target in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        results = [
            F.binary_cross_entropy_with_logits(
                make(torch.zeros(2, dtype=logits)), torch.ones(2, dtype=target)
            )
            for make in (Tensor.requires_grad_, Variable)
        ]
        assert results[0].dtype == results[1].dtype == target
        torch.testing.assert_close(results[1].detach(), results[0].detach())


def test_out_of_a_recorded_function_is_torch_s_error():
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        torch.max(input=Variable(torch.ones(2)), out=torch.empty(()))
