"""Mistakes in derivatives, more than a hundred: what a check of gradients should find."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .checked_functions import (
    Function,
    Rule,
    complex_product,
    draw,
    elementwise,
    functions,
    sigmoid,
    softmax,
    standardize,
)  # fmt: skip


def mistakes(seed: int = 0) -> list[Function]:
    """All of them. The seed draws which input of a function has the wrong gradient."""
    return [*generic(seed), *specific()]


# -- mistakes that any rule can have -------------------------------------------------------------------------


def last(xp: Any, v: Any, count: int) -> Any:
    """1 at the last elements, 0 elsewhere."""
    flat = xp.reshape(v, (-1,))
    order = xp.cumsum(xp.ones_like(flat), 0)
    return xp.reshape((order > flat.shape[0] - count) * xp.ones_like(flat), v.shape)


GENERIC: dict[str, tuple[Rule | None, tuple[str, ...]]] = {
    "wrong sign": (lambda xp, v, x: -v, ("cube", "log", "quotient", "cumsum", "standardize")),
    "wrong factor": (lambda xp, v, x: 2 * v, ("exp", "sqrt", "matmul", "mean of columns", "1e5 a + b")),
    "off by 1 %": (lambda xp, v, x: 1.01 * v, ("sin", "product", "softmax", "logsumexp", "1e5 a + b")),
    "off by 1e-4": (lambda xp, v, x: (1 + 1e-4) * v, ("tanh", "quotient", "matmul", "cumsum", "softmax")),
    "off by 1e-6": (lambda xp, v, x: (1 + 1e-6) * v, ("cube", "exp", "matmul", "softmax", "standardize")),
    "a term too many": (
        lambda xp, v, x: v + 0.05 * x, ("sin", "sqrt", "product", "matmul", "standardize"),
    ),
    "wrong at one element": (
        lambda xp, v, x: v * (1 + 0.5 * last(xp, v, 1)),
        ("square of 100 x 100", "sine of 3000", "matmul", "softmax", "product"),
    ),
    "zero at few elements": (
        lambda xp, v, x: v * (1 - last(xp, v, max(1, v.shape[0] // 2))),
        ("square of 100 x 100", "sine of 3000", "cube", "cumsum", "logsumexp"),
    ),
    "wrong where x is large": (
        lambda xp, v, x: v * (1 + 0.1 * (x > 1)), ("exp", "tanh", "square of 100 x 100", "matmul", "log"),
    ),
    "rounded to float32": (
        lambda xp, v, x: xp.double(xp.single(v)), ("sin", "exp", "quotient", "matmul", "softmax"),
    ),
    "random": (lambda xp, v, x: v * random.uniform(0.9, 1.1), ("tanh", "matmul", "product")),
    "cut from the graph": (None, ("cube", "exp", "log", "sigmoid", "softmax", "logsumexp", "tanh", "sqrt")),
}  # fmt: skip


def generic(seed: int) -> Iterator[Function]:
    """Each kind of mistake in some functions: in the gradient of one input, which is drawn, or in the JVP."""
    known, chance = functions(), random.Random(seed)
    for kind, (spoil, names) in GENERIC.items():
        for name in names:
            right = known[name]
            k = chance.randrange(len(right.inputs))

            def vjp(xp: Any, g: Any, *x: Any, right: Function = right, k: int = k, spoil: Any = spoil) -> Any:
                if spoil is None:
                    return right.vjp(xp, g, *[xp.stop(each) for each in x])
                shares = list(right.vjp(xp, g, *x))
                shares[k] = spoil(xp, shares[k], x[k])
                return tuple(shares)

            yield replace(right, vjp=vjp, kind=kind, only="vjp")
    for kind in ("wrong sign", "wrong factor", "off by 1e-4", "wrong at one element", "rounded to float32"):
        spoil = GENERIC[kind][0]
        for name in ("cube", "matmul", "softmax"):
            right = known[name]

            def jvp(xp: Any, t: Any, *x: Any, right: Function = right, spoil: Any = spoil) -> Any:
                return spoil(xp, right.jvp(xp, t, *x), x[0])

            yield replace(right, jvp=jvp, kind=f"JVP {kind}", only="jvp")


# -- mistakes of single functions ----------------------------------------------------------------------------


def specific() -> Iterator[Function]:
    known = functions()

    def vjp(name: str, kind: str, rule: Rule, **changes: Any) -> Function:
        return replace(known[name], vjp=rule, kind=kind, only="vjp", **changes)

    def slope(kind: str, name: str, value: Rule, wrong: Rule, x: np.ndarray) -> Function:
        return replace(elementwise(name, value, wrong, x), kind=kind, only="vjp")

    yield vjp("matmul", "transposed", lambda xp, g, x, y: (g @ y, x.T @ g))
    yield vjp("matmul", "transposed", lambda xp, g, x, y: (g @ y.T, x @ g))
    yield vjp("matmul", "transposed", lambda xp, g, x, y: ((g @ y.T).T, x.T @ g))
    yield vjp("product", "arguments swapped", lambda xp, g, x, y: (g * x, g * y))
    yield vjp("quotient", "arguments swapped", lambda xp, g, x, y: (-g * x / y**2, g / y))
    yield vjp("quotient", "missing term", lambda xp, g, x, y: (g / y, -g * x / y))
    yield vjp("softmax", "missing term", lambda xp, g, x: (g * softmax(xp, x),))
    yield vjp("standardize", "missing term", lambda xp, g, x: (g / standardize(xp, x)[1],))
    yield vjp(
        "standardize", "missing term",
        lambda xp, g, x: ((g - g.mean(-1)[..., None]) / standardize(xp, x)[1],),
    )  # fmt: skip
    yield vjp(
        "softmax", "wrong reduction",
        lambda xp, g, x: ((g - (g * softmax(xp, x)).sum(0)[None, :]) * softmax(xp, x),),
    )  # fmt: skip
    yield vjp("logsumexp", "wrong reduction", lambda xp, g, x: (g[:, None] * softmax(xp, x.T).T,))
    yield vjp("sum of columns", "wrong broadcasting", lambda xp, g, x: (g[:, None] * xp.ones_like(x),))
    yield vjp("mean of columns", "wrong broadcasting", lambda xp, g, x: (g[:, None] * xp.ones_like(x) / 4,))
    yield vjp("mean of columns", "wrong reduction", lambda xp, g, x: (g[None, :] * xp.ones_like(x) / 16,))
    yield vjp("sum of columns", "wrong shape", lambda xp, g, x: (g[None, :],))
    yield vjp("product", "wrong shape", lambda xp, g, x, y: (g * y, (g * x)[:2]))
    yield vjp("sin", "wrong dtype", lambda xp, g, x: (xp.single(g * xp.cos(x)),))
    yield vjp("product", "wrong dtype", lambda xp, g, x, y: (g * y, xp.single(g * x)))
    yield vjp("cumsum", "wrong direction", lambda xp, g, x: (xp.cumsum(g, 0),))
    yield vjp(
        "complex product", "conjugate forgotten",
        lambda xp, g, x, y: (complex_product(xp, y, g), complex_product(xp, x, g, True)),
    )  # fmt: skip
    yield vjp(
        "complex product", "conjugate forgotten",
        lambda xp, g, x, y: (complex_product(xp, y, g), complex_product(xp, x, g)),
    )  # fmt: skip
    yield vjp("tanh", "of the argument, not of the result", lambda xp, g, x: (g * (1 - x * x),))
    yield vjp(
        "sigmoid", "wrong sign in a factor", lambda xp, g, x: (g * sigmoid(xp, x) * (1 + sigmoid(xp, x)),)
    )
    yield vjp("log", "a small constant too many", lambda xp, g, x: (g / (x + 1e-5),))
    yield vjp("sin", "not linear in g", lambda xp, g, x: (xp.abs(g) * xp.cos(x),))
    yield vjp("matmul", "not linear in g", lambda xp, g, x, y: (g @ y.T, x.T @ xp.abs(g)))
    yield vjp("exp", "elements mixed", lambda xp, g, x: (g * xp.exp(x) + 1e-3 * g.sum(),))

    rules: dict[str, Rule] = {
        "product": lambda xp, t, x, y: t[0] * y,
        "quotient": lambda xp, t, x, y: t[0] / y + x * t[1] / y**2,
        "sin": lambda xp, t, x: xp.abs(t[0]) * xp.cos(x),
    }
    for name, rule in rules.items():
        yield replace(known[name], jvp=rule, kind="JVP of its own", only="jvp")

    at_zero = draw(5)
    at_zero[1] = 0

    def sinc(xp: Any, x: Any) -> Any:
        one = xp.ones_like(x)
        return xp.where(x == 0, one, xp.sin(x) / xp.where(x == 0, one, x))

    yield slope("nan at a point", "sin x / x", sinc, lambda xp, x: (xp.cos(x) - xp.sin(x) / x) / x, at_zero)
    yield slope(
        "nan at a point", "x |x|", lambda xp, x: x * xp.abs(x), lambda xp, x: 2 * x * x / xp.abs(x), at_zero
    )
    yield slope("wrong at a point", "x²", lambda xp, x: x * x, lambda xp, x: 2 * x + (x == 0), at_zero)

    far = np.array([-200.0, -3.0, 0.5, 200.0], dtype=np.float32)
    yield slope(
        "overflow in float32", "sigmoid", sigmoid, lambda xp, x: xp.exp(-x) / (1 + xp.exp(-x)) ** 2, far
    )
    yield slope(
        "overflow in float32", "softplus",
        lambda xp, x: xp.where(x > 0, x, 0 * x) + xp.log1p(xp.exp(-xp.abs(x))),
        lambda xp, x: xp.exp(x) / (1 + xp.exp(x)), far,
    )  # fmt: skip
    rows = (far[None, :] * np.ones((2, 1), dtype=np.float32),)
    yield vjp(
        "logsumexp", "overflow in float32",
        lambda xp, g, x: (g[..., None] * xp.exp(x) / xp.exp(x).sum(-1)[..., None],), inputs=rows,
    )  # fmt: skip
    yield vjp(
        "quotient", "overflow in float32", lambda xp, g, x, y: (g / y, -g * x / (y * y)),
        inputs=tuple(np.array(two, dtype=np.float32) for two in ([1e25, 2e25], [1e25, 3e24])),
    )  # fmt: skip
