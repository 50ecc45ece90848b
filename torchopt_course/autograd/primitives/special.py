"""Special functions: each has a derivative that is made of functions of the same family."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..decompose import stands_for
from ..dispatch import means
from ..traced import Value, raw
from .table import ELEMENTWISE, elementwise, primitive

aten = torch.ops.aten

# -- the gamma function and its relatives --------------------------------------------------------------------

lgamma = elementwise(torch.lgamma, "gammaln", x=lambda g, x: g * torch.digamma(x), symbolic="loggamma")
digamma = elementwise(torch.digamma, "psi", x=lambda g, x: g * torch.polygamma(1, x), symbolic="digamma")


@primitive(x=lambda g, n, x: g * torch.polygamma(n + 1, x), jvp=ELEMENTWISE)
def polygamma(n: int, x: Tensor) -> Tensor:
    return torch.polygamma(n, x)


@stands_for("polygamma")
def _polygamma(n: int, x: Value) -> Value:
    return digamma(x) if n == 0 else polygamma(n, x)


@primitive(x=lambda g, x, p: g * sum(torch.digamma(x - 0.5 * i) for i in range(p)), jvp=ELEMENTWISE)
def mvlgamma(x: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function: a constant plus Σ ln Γ(x - i / 2) for i < p."""
    return torch.mvlgamma(x, p)


@means("mvlgamma", "multigammaln")
def _mvlgamma(x: Value, p: int) -> Value:
    return mvlgamma(x, p)


entr = elementwise(torch.special.entr, "entr", x=lambda g, x: g * (-1 - torch.log(x)))


def _gamma_density(g: Value, a: Value, x: Value) -> Value:
    """xᵃ⁻¹ e⁻ˣ / Γ(a): the regularized incomplete gamma function is its integral up to x."""
    return g * torch.exp((a - 1) * torch.log(x) - x - torch.lgamma(a))


@primitive("igamma", "gammainc", x=_gamma_density, jvp=ELEMENTWISE)
def gammainc(a: Tensor, x: Tensor) -> Tensor:
    """No derivative with respect to a, as in torch."""
    return torch.special.gammainc(a, x)  # type: ignore[no-any-return]


@primitive("igammac", "gammaincc", x=lambda g, a, x: -_gamma_density(g, a, x), jvp=ELEMENTWISE)
def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    return torch.special.gammaincc(a, x)  # type: ignore[no-any-return]


@primitive("zeta", q=lambda g, s, q: -g * s * torch.special.zeta(s + 1, q), jvp=ELEMENTWISE)
def zeta(s: Tensor | float, q: Tensor | float) -> Tensor:
    """Hurwitz's; no derivative with respect to s, as in torch."""
    return torch.special.zeta(s, q)  # type: ignore[no-any-return]


# -- the normal distribution ---------------------------------------------------------------------------------

erfc = elementwise(
    torch.erfc, x=lambda g, x: g * (-2 / math.sqrt(math.pi)) * torch.exp(-x * x), symbolic="erfc"
)
erfinv = elementwise(
    torch.erfinv, x=lambda g, ans: g * (math.sqrt(math.pi) / 2) * torch.exp(ans * ans), symbolic="erfinv"
)
erfcx = elementwise(
    torch.special.erfcx, "erfcx", x=lambda g, x, ans: g * (2 * x * ans - 2 / math.sqrt(math.pi))
)
ndtri = elementwise(
    torch.special.ndtri, "ndtri", x=lambda g, ans: g * math.sqrt(2 * math.pi) * torch.exp(ans * ans / 2)
)
log_ndtr = elementwise(
    torch.special.log_ndtr,
    "log_ndtr",
    x=lambda g, x: g * _hazard(x),
)


def _hazard(x: Value) -> Value:
    """φ(x) / Φ(x), by the scaled function, which does not underflow on the left; NaN at -inf as in torch."""
    slope = math.sqrt(2 / math.pi) / torch.special.erfcx(-x / math.sqrt(2))
    return torch.where(raw(x) == -math.inf, math.nan, slope)


def _logit_slope(g: Value, x: Value, eps: float | None) -> Value:
    if eps is None:
        return torch.where((raw(x) < 0) | (raw(x) > 1), math.nan, g / (x * (1 - x)))
    inside = (raw(x) >= eps) & (raw(x) <= 1 - eps)
    return torch.where(inside, g / torch.where(inside, x * (1 - x), 1.0), 0.0)


@primitive("logit", x=_logit_slope, fast=lambda g, x, eps: aten.logit_backward(g, x, eps), jvp=ELEMENTWISE)
def logit(x: Tensor, eps: float | None = None) -> Tensor:
    return torch.logit(x, eps)


# -- the sampling function -----------------------------------------------------------------------------------


def _sinc_slope(g: Value, x: Value) -> Value:
    """(cos πx - sinc x) / x, and 0 at 0."""
    middle = raw(x) == 0
    away = torch.where(middle, 1.0, x)
    return g * torch.where(middle, 0.0, (torch.cos(math.pi * away) - torch.sinc(away)) / away)


sinc = elementwise(torch.sinc, x=_sinc_slope)

# -- Bessel functions ----------------------------------------------------------------------------------------


def _i1_slope(g: Value, x: Value, ans: Value) -> Value:
    """I₀ - I₁ / x, and 1/2 at 0."""
    middle = ~(raw(x).abs() > torch.finfo(x.dtype).eps)  # where torch has it, too
    away = torch.where(middle, 1.0, x)
    return g * torch.where(middle, 0.5, torch.i0(away) - ans / away)


def _i1e_slope(g: Value, x: Value, ans: Value) -> Value:
    middle = ~(raw(x).abs() > torch.finfo(x.dtype).eps)  # where torch has it, too
    away = torch.where(middle, 1.0, x)
    return g * torch.where(
        middle, 0.5, torch.special.i0e(away) - ans * (torch.sign(away) + torch.reciprocal(away))
    )


i0 = elementwise(torch.i0, x=lambda g, x: g * torch.special.i1(x))
i0e = elementwise(
    torch.special.i0e, "i0e", x=lambda g, x, ans: g * (torch.special.i1e(x) - torch.sign(x) * ans)
)
i1 = elementwise(torch.special.i1, "i1", x=_i1_slope)
i1e = elementwise(torch.special.i1e, "i1e", x=_i1e_slope)
