"""Functions with their derivatives, for torch, JAX and us alike.

A rule is written once for ``xp``: torch or ``jax.numpy``, which agree in the names used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Rule = Callable[..., Any]


@dataclass(frozen=True)
class Function:
    """``value(xp, *x)``, ``vjp(xp, g, *x) -> tuple``, ``jvp(xp, tangents, *x)``, and where to check them."""

    name: str
    value: Rule
    vjp: Rule
    jvp: Rule
    inputs: tuple[np.ndarray, ...]
    kind: str = "right"
    only: str = ""
    """"vjp" or "jvp": where the mistake is."""


def draw(*shape: int, low: float = -1.5, high: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def elementwise(name: str, value: Rule, slope: Rule, x: np.ndarray) -> Function:
    """The derivative of each element is ``slope(xp, x)``."""
    return Function(
        name, value, lambda xp, g, x: (g * slope(xp, x),), lambda xp, t, x: t[0] * slope(xp, x), (x,)
    )


def sigmoid(xp: Any, x: Any) -> Any:
    return 0.5 * (xp.tanh(0.5 * x) + 1)


def softmax(xp: Any, x: Any) -> Any:
    e = xp.exp(x - xp.amax(x, -1)[..., None])
    return e / e.sum(-1)[..., None]


def standardize(xp: Any, x: Any) -> tuple[Any, Any]:
    centred = x - x.mean(-1)[..., None]
    spread = xp.sqrt((centred * centred).mean(-1))[..., None]
    return centred / spread, spread


def d_standardize(xp: Any, g: Any, x: Any) -> Any:
    """The Jacobian is symmetric: VJP and JVP alike."""
    y, spread = standardize(xp, x)
    return (g - g.mean(-1)[..., None] - y * (g * y).mean(-1)[..., None]) / spread


def complex_product(xp: Any, a: Any, b: Any, conjugate: bool = False) -> Any:
    """Pairs as complex numbers: a b, or a̅ b."""
    re, im = a[..., 0], (-1 if conjugate else 1) * a[..., 1]
    return xp.stack([re * b[..., 0] - im * b[..., 1], re * b[..., 1] + im * b[..., 0]], -1)


def functions() -> dict[str, Function]:
    """All of them right, at ordinary points."""
    sq, pos = draw(4, 4, seed=1), draw(5, low=0.3, high=2.5, seed=2)
    softmax_of = lambda xp, x: softmax(xp, x)  # noqa: E731
    found = [
        elementwise("cube", lambda xp, x: x * x * x, lambda xp, x: 3 * x * x, draw(6)),
        elementwise("sin", lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x), draw(6)),
        elementwise("exp", lambda xp, x: xp.exp(x), lambda xp, x: xp.exp(x), draw(6)),
        elementwise("tanh", lambda xp, x: xp.tanh(x), lambda xp, x: 1 - xp.tanh(x) ** 2, draw(6)),
        elementwise("log", lambda xp, x: xp.log(x), lambda xp, x: 1 / x, pos),
        elementwise("sqrt", lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x), pos),
        elementwise("sigmoid", sigmoid, lambda xp, x: sigmoid(xp, x) * (1 - sigmoid(xp, x)), draw(6)),
        elementwise("square of 100 x 100", lambda xp, x: x * x, lambda xp, x: 2 * x, draw(100, 100)),
        elementwise("sine of 3000", lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x), draw(3000, seed=5)),
        Function(
            "product", lambda xp, x, y: x * y, lambda xp, g, x, y: (g * y, g * x),
            lambda xp, t, x, y: t[0] * y + x * t[1], (draw(5), draw(5, seed=3)),
        ),
        Function(
            "1e5 a + b", lambda xp, x, y: 1e5 * x + y, lambda xp, g, x, y: (1e5 * g, g),
            lambda xp, t, x, y: 1e5 * t[0] + t[1], (draw(4), draw(4, seed=4)),
        ),
        Function(
            "quotient", lambda xp, x, y: x / y, lambda xp, g, x, y: (g / y, -g * x / y**2),
            lambda xp, t, x, y: t[0] / y - x * t[1] / y**2, (draw(5), pos),
        ),
        Function(
            "matmul", lambda xp, x, y: x @ y, lambda xp, g, x, y: (g @ y.T, x.T @ g),
            lambda xp, t, x, y: t[0] @ y + x @ t[1], (sq, draw(4, 4, seed=7)),
        ),
        Function(
            "sum of columns", lambda xp, x: x.sum(0), lambda xp, g, x: (g[None, :] * xp.ones_like(x),),
            lambda xp, t, x: t[0].sum(0), (sq,),
        ),
        Function(
            "mean of columns", lambda xp, x: x.mean(0), lambda xp, g, x: (g[None, :] * xp.ones_like(x) / 4,),
            lambda xp, t, x: t[0].mean(0), (sq,),
        ),
        Function(
            "cumsum", lambda xp, x: xp.cumsum(x, 0),
            lambda xp, g, x: (xp.flip(xp.cumsum(xp.flip(g, (0,)), 0), (0,)),),
            lambda xp, t, x: xp.cumsum(t[0], 0), (sq,),
        ),
        Function(
            "softmax", softmax_of,
            lambda xp, g, x: ((g - (g * softmax(xp, x)).sum(-1)[..., None]) * softmax(xp, x),),
            lambda xp, t, x: (t[0] - (t[0] * softmax(xp, x)).sum(-1)[..., None]) * softmax(xp, x), (sq,),
        ),
        Function(
            "logsumexp", lambda xp, x: xp.amax(x, -1) + xp.log(xp.exp(x - xp.amax(x, -1)[..., None]).sum(-1)),
            lambda xp, g, x: (g[..., None] * softmax(xp, x),),
            lambda xp, t, x: (t[0] * softmax(xp, x)).sum(-1), (sq,),
        ),
        Function(
            "standardize", lambda xp, x: standardize(xp, x)[0], lambda xp, g, x: (d_standardize(xp, g, x),),
            lambda xp, t, x: d_standardize(xp, t[0], x), (sq,),
        ),
        Function(
            "complex product", complex_product,
            lambda xp, g, x, y: (complex_product(xp, y, g, True), complex_product(xp, x, g, True)),
            lambda xp, t, x, y: complex_product(xp, t[0], y) + complex_product(xp, x, t[1]),
            (draw(4, 2), draw(4, 2, seed=9)),
        ),
    ]  # fmt: skip
    return {function.name: function for function in found}


def hard_points() -> Iterator[Function]:
    """Right functions where checks like to fail: kinks, round-off, steep slopes, the edge of the domain."""
    f32 = np.float32
    zero = draw(5)
    zero[2] = 0
    yield elementwise(
        "relu, at 0 too", lambda xp, x: (x > 0) * x, lambda xp, x: (x > 0) * xp.ones_like(x), zero
    )
    yield elementwise("abs, at 0 too", lambda xp, x: xp.abs(x), lambda xp, x: xp.sign(x), zero)
    yield elementwise(
        "floor", lambda xp, x: xp.floor(x), lambda xp, x: xp.zeros_like(x), draw(5, low=-3, high=3)
    )
    yield elementwise("1e8 + x", lambda xp, x: 1e8 + x, lambda xp, x: xp.ones_like(x), draw(5))
    yield elementwise("1e-8 sin x", lambda xp, x: 1e-8 * xp.sin(x), lambda xp, x: 1e-8 * xp.cos(x), draw(5))
    yield elementwise("1e6 x³", lambda xp, x: 1e6 * x**3, lambda xp, x: 3e6 * x**2, draw(5))
    yield elementwise("exp(40 x)", lambda xp, x: xp.exp(40 * x), lambda xp, x: 40 * xp.exp(40 * x), draw(5))
    yield elementwise(
        "sin(1000 x)", lambda xp, x: xp.sin(1e3 * x), lambda xp, x: 1e3 * xp.cos(1e3 * x), draw(5)
    )
    small = draw(5, low=1e-9, high=1e-4)
    yield elementwise("log near 0", lambda xp, x: xp.log(x), lambda xp, x: 1 / x, small)
    yield elementwise("sqrt near 0", lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x), small)
    yield elementwise("1/x near 0", lambda xp, x: 1 / x, lambda xp, x: -1 / (x * x), small)
    large = draw(5, low=1e5, high=1e6)
    yield elementwise("log far out", lambda xp, x: xp.log(x), lambda xp, x: 1 / x, large)
    yield elementwise("sqrt far out", lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x), large)
    known = functions()
    for name in ("exp", "softmax", "matmul", "quotient", "standardize", "logsumexp", "1e5 a + b"):
        single = tuple(x.astype(f32) for x in known[name].inputs)
        yield replace(known[name], name=f"{name} in float32", inputs=single)
    wide = (draw(60, 60), draw(60, 60, seed=1))
    yield replace(known["matmul"], name="matmul of 60 x 60", inputs=wide)
    yield replace(known["softmax"], name="softmax, saturated", inputs=(30 * draw(4, 4),))
