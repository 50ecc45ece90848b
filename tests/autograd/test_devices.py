"""What can be said of a second device on a machine without one: torch's "meta" has shapes and no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable, decompose
from torchopt_course.testing import assert_gradients_agree

from .agreement import torch_gradients

META = torch.ones(3, device="meta", dtype=torch.float64)
MOVES: dict[str, Callable[[Any], Any]] = {
    "to": lambda x: x.to("meta"),
    "to another tensor's": lambda x: x.to(META),
    "type_as": lambda x: x.type_as(META),
    "in a dtype": lambda x: x.double(),
    "laid out": lambda x: x.double(memory_format=torch.channels_last),
    "cpu": lambda x: x.cpu(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_as_torch_does(name: str):
    x = torch.rand(2, 3, 4, 5)
    mine, theirs = MOVES[name](Variable(x)), MOVES[name](x.clone().requires_grad_())
    assert (mine.device, mine.dtype, mine.stride()) == (theirs.device, theirs.dtype, theirs.stride())
    assert isinstance(mine, Variable)


@pytest.mark.parametrize(
    "program",
    [
        lambda s, x: s * x,
        lambda s, x: x - s,
        lambda s, x: torch.where(x > 0, s, x),
        lambda s, x: torch.lerp(x, x, s),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_a_number_of_the_cpu_is_moved_in_sight_so_that_its_gradient_comes_back(program: Any, recorded: bool):
    number = torch.tensor(2.0, dtype=torch.float64)
    if recorded:
        with ag.record():
            y = program(number.requires_grad_(), META)
    else:
        y = program(Variable(number), META)
    assert y.device.type == "meta"
    moves = [parent for parent in y.node.parents if str(parent.op) == "convert"]
    assert [str(parent.parents[0]) for parent in moves] == ["<Node leaf, float64 ()>"]


def test_numbers_of_the_cpu_next_to_tensors_of_the_cpu_stay():
    y = Variable(2.0) * torch.ones(3)
    assert [parent.op for parent in y.node.parents] == [None]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_largest_of_a_bag_where_each_has_a_size_and_the_last_offset_too(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """As on a GPU, which gives one size more."""
    table = torch.rand(5, 4, dtype=torch.float64)
    rows, offsets = torch.tensor([0, 2, 2, 1], dtype=dtype), torch.tensor([0, 2, 2, 4], dtype=dtype)

    def program(x: Any) -> Any:
        return F.embedding_bag(rows, x, offsets, mode="max", include_last_offset=True)

    _, (expected,) = torch_gradients(program, [table], torch.ones(3, 4, dtype=torch.float64))
    by_torch = torch.embedding_bag

    def as_on_a_gpu(*args: Any) -> Any:
        values, bags, sizes, largest = by_torch(*args)
        return values, bags, torch.cat([sizes, sizes[:1] * 0]) if len(sizes) == 3 else sizes, largest

    for patched in (by_torch, as_on_a_gpu):
        monkeypatch.setattr(torch, "embedding_bag", patched)
        x = Variable(table)
        meaning = decompose.OPERATORS["_embedding_bag"]
        meaning(x, rows, offsets, mode=2, include_last_offset=True)[0].sum().backward()
        torch.testing.assert_close(x.grad, expected)


def test_native_dropout_draws_as_torchs():
    x = torch.rand(50, dtype=torch.float64)
    for train in (True, False):
        torch.manual_seed(1)
        theirs = torch.native_dropout(x, 0.3, train)
        torch.manual_seed(1)
        mine = torch.native_dropout(Variable(x), 0.3, train)
        torch.testing.assert_close(mine[0].detach(), theirs[0])
        torch.testing.assert_close(mine[1], theirs[1])


def operator(name: str, *values: Any) -> Any:
    """What an operator that only a GPU has stands for."""
    given = [decompose.StandIn(value) if isinstance(value, Variable) else value for value in values]
    return getattr(torch.ops.aten, name).default, tuple(given)


def test_cudnns_operators_have_a_meaning(monkeypatch: pytest.MonkeyPatch):
    """Torch takes them when it takes instance norm or grid_sample apart on a GPU."""
    monkeypatch.setattr(decompose, "ask", lambda *_: None)  # nobody can answer here
    x, grid = torch.rand(2, 3, 4, 4, dtype=torch.float64), torch.rand(2, 5, 5, 2, dtype=torch.float64) * 2 - 1
    sampled = decompose.perform(*operator("cudnn_grid_sampler", Variable(x), Variable(grid)), {}).value
    torch.testing.assert_close(sampled.detach(), F.grid_sample(x, grid, align_corners=True))
    scale, shift = torch.rand(2, 3, dtype=torch.float64)
    running = [torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    theirs = [each.clone() for each in running]
    call = operator(
        "cudnn_batch_norm", Variable(x), Variable(scale), Variable(shift), *running, True, 0.1, 1e-5
    )
    normalized = decompose.perform(*call, {})[0].value
    expected = F.batch_norm(x, *theirs, scale, shift, True)
    torch.testing.assert_close(normalized.detach(), expected)
    torch.testing.assert_close(running, theirs)


def test_within_a_default_device_a_packed_batch_stays_where_it_is():
    """The lengths are numbers of the CPU."""
    layer = nn.GRU(3, 4, batch_first=True)

    def program() -> Any:
        with torch.device("meta"):
            rows = nn.utils.rnn.pack_padded_sequence(
                torch.ones(2, 5, 3, device="cpu"), [5, 2], batch_first=True
            )
            return nn.utils.rnn.pad_packed_sequence(rows)[0]

    with ag.record(layer):
        assert program().shape == (5, 2, 3)


def test_checking_gradients_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert_gradients_agree(lambda x: F.dropout(x.exp(), 0.5), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(torch.rand(2), expected)


def test_a_gradient_of_another_device_to_start_with_is_torchs_error():
    x = torch.ones(3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="expected device cpu but got meta"):
        torch.autograd.grad(x.requires_grad_() * 2, x, META)
    with pytest.raises(RuntimeError, match="expected device cpu but got meta"):
        (Variable(x) * 2).backward(META)
    with pytest.raises(NotImplementedError, match="meta"):  # a number is moved, if it has a value
        (Variable(x) * 2).sum().backward(META[0])


def test_the_tangent_of_a_number_of_the_cpu_is_where_the_result_is():
    number = torch.tensor(2.0, dtype=torch.float64)
    for program in (
        lambda s: s + META,
        lambda s: torch.where(META > 0, s, META),
        lambda s: (s - META) * META,
    ):
        y, tangent = ag.jvp(program, (number,), (number,))
        assert (tangent.device, tangent.shape) == (y.device, y.shape)
