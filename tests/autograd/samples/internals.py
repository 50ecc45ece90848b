"""What only derivatives of higher order and in-place operations reach, on its own."""

from __future__ import annotations

from typing import Any

import torch

from torchopt_course.autograd import PRIMITIVES

from .drawing import Case, Draw, sample


@sample
def put(draw: Draw) -> Case:
    index = draw.pick([(slice(1, 3),), (torch.tensor([0, 0]),)])
    return lambda g: PRIMITIVES["put"](g, index, (4, 3)), (draw.tensor(2, 3),)


# What in-place operations come to; the programs that use them are in test_inplace.py.


@sample
def overwrite(draw: Draw) -> Case:
    return lambda x, new: PRIMITIVES["overwrite"](x, new) * 1, (draw.tensor(2, 3), draw.tensor(2, 3))


@sample
def laid_out(draw: Draw) -> Case:
    return lambda x: PRIMITIVES["laid_out"](x, (1, 2)), (draw.tensor(2, 3),)


@sample
def strided_view(draw: Draw) -> Case:
    size, stride = draw.pick([((2, 2), (3, 1)), ((3,), (1,)), ((2, 3), (1, 1))])
    return lambda x: PRIMITIVES["strided_view"](x.contiguous(), size, stride, 1, ((3, 3), (3, 1))), (
        draw.tensor(3, 3),
    )


@sample
def write_view(draw: Draw) -> Case:
    def f(x: Any, new: Any) -> Any:
        whole = x * 1
        whole.T[draw_rows] = new
        return whole

    return f, (draw.tensor(2, 3), draw.tensor(2, 2))


draw_rows = slice(1, 3)


@sample
def put_items(draw: Draw) -> Case:
    index = draw.pick([torch.tensor([2, 0]), torch.tensor([True, False, True])])
    return lambda x, value: PRIMITIVES["put_items"](x, value, index), (draw.tensor(3, 2), draw.tensor(2, 2))


@sample
def embedding_rows(draw: Draw) -> Case:
    tokens = draw.labels(5, 4)
    return lambda g: PRIMITIVES["embedding_rows"](g, tokens, 5, draw_padding, False), (draw.tensor(4, 3),)


draw_padding = 2


@sample
def gammainc(draw: Draw) -> Case:
    a = draw.tensor(3, 4, low=0.5, high=3.0).detach()
    return lambda x: torch.special.gammainc(a, x), (draw.tensor(3, 4, low=0.5, high=3.0),)


@sample
def gammaincc(draw: Draw) -> Case:
    a = draw.tensor(3, 4, low=0.5, high=3.0).detach()
    return lambda x: torch.special.gammaincc(a, x), (draw.tensor(3, 4, low=0.5, high=3.0),)
