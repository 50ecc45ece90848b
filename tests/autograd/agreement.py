"""All modes against torch.autograd, on one function and its inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

# Makes a leaf of numbers.
Make = Callable[..., Any]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def close(mine: Any, theirs: Tensor, what: str, tolerance: float) -> None:
    assert mine.shape == theirs.shape, f"{what}: shape {tuple(mine.shape)}, torch {tuple(theirs.shape)}"
    assert mine.dtype == theirs.dtype, f"{what}: {mine.dtype}, torch {theirs.dtype}"
    scale = max(1.0, theirs.detach().abs().max().item() if theirs.numel() else 1.0)
    torch.testing.assert_close(
        mine.detach(), theirs.detach(), rtol=0, atol=tolerance * scale, equal_nan=True,
        msg=lambda text: f"{what}\n{text}",
    )  # fmt: skip


def torch_gradients(
    f: Callable[..., Any], inputs: Sequence[Tensor], g: Tensor, **how: Any
) -> tuple[Any, Any]:
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    y = f(*leaves)
    if not y.requires_grad:
        return leaves, [torch.zeros_like(x) for x in leaves]
    grads = torch.autograd.grad(y, leaves, g, materialize_grads=True, **how)
    return leaves, grads


def like(xs: Sequence[Tensor], seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in xs)


def check_first_order(f: Callable[..., Any], inputs: tuple[Tensor, ...], tolerance: float) -> Tensor:
    """Value, VJP, JVP, and what backward() leaves in .grad. Returns a gradient to start with."""
    y = f(*inputs)
    (g,) = like([y], 1)
    _, expected = torch_gradients(f, inputs, g)
    value, pull = ag.vjp(f, *inputs)
    close(value, y, "value", tolerance)
    for i, (mine, theirs) in enumerate(zip(pull(g), expected, strict=True)):
        close(mine, theirs, f"VJP, argument {i}", tolerance)

    leaves = [ag.Variable(x) for x in inputs]
    output = f(*leaves)
    if isinstance(output, ag.Variable):
        output.backward(g)
        for i, (leaf, theirs) in enumerate(zip(leaves, expected, strict=True)):
            if leaf.grad is not None:
                close(leaf.grad, theirs, f"backward, argument {i}", tolerance)

    tangents = like(inputs, 2)
    value, pushed = ag.jvp(f, inputs, tangents)
    close(value, y, "value in forward mode", tolerance)
    try:
        _, truth = torch.autograd.functional.jvp(f, tuple(x.detach() for x in inputs), tangents)
        close(pushed, truth, "JVP", tolerance)
    except RuntimeError:  # torch transposes its VJP twice for this, which not all of its kernels can
        pair = sum((a * b).sum() for a, b in zip(expected, tangents, strict=True))
        close((pushed * g).sum(), pair, "JVP", tolerance)
    return g


def check_second_order(
    f: Callable[..., Any], inputs: tuple[Tensor, ...], g: Tensor, tolerance: float
) -> None:
    """H t for s(x) = <g, f(x)>: every nesting of the two modes, and two backward sweeps, against torch."""
    t = like(inputs, 3)
    leaves, first = torch_gradients(f, inputs, g, create_graph=True)
    s = sum((a * b).sum() for a, b in zip(first, t, strict=True))
    if isinstance(s, Tensor) and s.requires_grad:
        expected = torch.autograd.grad(s, leaves, materialize_grads=True)
    else:
        expected = tuple(torch.zeros_like(x) for x in inputs)

    def gradient(*xs: Any) -> Any:
        return ag.vjp(f, *xs)[1](g)

    def slope(*xs: Any) -> Any:
        return (ag.jvp(f, xs, t)[1] * g).sum()

    for name, mine in {
        "reverse over reverse": ag.vjp(gradient, *inputs)[1](t),
        "forward over reverse": ag.jvp(gradient, inputs, t)[1],
        "reverse over forward": ag.grad(slope, argnums=tuple(range(len(inputs))))(*inputs),
    }.items():
        for i, (a, b) in enumerate(zip(mine, expected, strict=True)):
            close(a, b, f"{name}, argument {i}", tolerance)

    curvature = (ag.jvp(lambda *xs: ag.jvp(f, xs, t)[1], inputs, t)[1] * g).sum()
    truth = sum((a * b).sum() for a, b in zip(expected, t, strict=True))
    close(curvature.to(truth.dtype), truth, "forward over forward", 10 * tolerance)

    xs = [ag.Variable(x) for x in inputs]
    y = f(*xs)
    if not isinstance(y, ag.Variable):
        return
    y.backward(g, create_graph=True)  # by the readable rules: kernels are not recorded
    for i, (x, b) in enumerate(zip(xs, first, strict=True)):
        if x.grad is not None:
            close(x.grad, b, f"recorded backward, argument {i}", tolerance)
    s = sum((x.grad * v).sum() for x, v in zip(xs, t, strict=True) if x.grad is not None)
    for x in xs:
        x.grad = None
    if isinstance(s, ag.Variable):
        s.backward()
    for i, (x, b) in enumerate(zip(xs, expected, strict=True)):
        close(
            x.grad if x.grad is not None else torch.zeros_like(x.data),
            b,
            f"backward twice, argument {i}",
            tolerance,
        )


def assert_as_in_torch(program: Callable[[Make], list[Any]]) -> None:
    """What a user's program gives with variables, and within ``record``, beside torch's tensors."""

    def tensor(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    def variable(*values: float) -> Variable:
        return Variable(torch.tensor(values, dtype=torch.float64))

    expected = program(tensor)
    for make, block in ((variable, contextlib.nullcontext), (tensor, ag.record)):
        with block():
            results = program(make)
        for mine, theirs in zip(results, expected, strict=True):
            if isinstance(theirs, Tensor):
                torch.testing.assert_close(mine.detach(), theirs.detach())
            else:
                assert mine == theirs


def error_of(call: Callable[[], Any]) -> str:
    """The type of the error that a call raises."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "none"
