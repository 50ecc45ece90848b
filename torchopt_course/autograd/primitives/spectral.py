"""Decompositions of matrices: eigenvalues, singular values, QR, LU.

They have several results, and a primitive has one: so these give all of them side by side in one matrix, from
which the parts are cut. Where eigenvalues or singular values coincide, vectors have no derivative, the values
do.

Sources: Giles, *Collected matrix derivative results*, 2008; Townsend, *Differentiating the singular value
decomposition*, 2016; Walter and Lehmann, *Algorithmic differentiation of linear algebra functions*, 2010.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..decompose import stands_for
from ..traced import Value, raw
from .linalg import _t, solve_triangular
from .table import primitive


def _row(values: Value) -> Value:
    return values.unsqueeze(-2)


def _over_gaps(turn: Value, values: Value) -> Value:
    """Divided by λⱼ - λᵢ, with zeros on the diagonal. Nothing divided by no gap is nothing: a gradient that
    does not depend on the vectors is well defined for equal values as well."""
    gaps = values.unsqueeze(-2) - values.unsqueeze(-1)
    nothing = (raw(turn) == 0) & (raw(gaps) == 0)
    nothing = nothing | torch.eye(values.shape[-1], dtype=torch.bool, device=raw(values).device)
    return torch.where(nothing, 0.0, turn / torch.where(nothing, 1.0, gaps))


# -- symmetric matrices --------------------------------------------------------------------------------------


def _eigh_vjp(g: Value, ans: Value) -> Value:
    """V (diag(g_λ) + skew(Vᵀ g_V) / (λⱼ - λᵢ)) Vᵀ: as symmetric as the matrix, so that it stays so."""
    values, vectors = ans[..., 0, :], ans[..., 1:, :]
    turn = _t(vectors) @ g[..., 1:, :]
    turn = _over_gaps(0.5 * (turn - _t(turn)), values)
    return vectors @ (torch.diag_embed(g[..., 0, :]) + turn) @ _t(vectors)


def _eigh_jvp(a_dot: Value, ans: Value, lower: bool) -> Value:
    """λ̇ = diag(Vᵀ Ȧ V); V turns by the rest, divided by λⱼ - λᵢ."""
    values, vectors = ans[..., 0, :], ans[..., 1:, :]
    half = torch.tril(a_dot, -1) if lower else torch.triu(a_dot, 1)
    a_dot = half + _t(half) + torch.diag_embed(torch.diagonal(a_dot, 0, -2, -1))
    change = _t(vectors) @ a_dot @ vectors
    return torch.cat([_row(torch.diagonal(change, 0, -2, -1)), vectors @ _over_gaps(change, values)], -2)


@primitive(a=_eigh_vjp, jvp=_eigh_jvp)
def eigh(a: Tensor, lower: bool) -> Tensor:
    """The eigenvalues in the first row, below each its vector."""
    values, vectors = torch.linalg.eigh(a, "L" if lower else "U")
    return torch.cat([_row(values), vectors], -2)


@stands_for("_linalg_eigh")
def _linalg_eigh(a: Value, UPLO: str = "L", compute_v: bool = True) -> tuple[Value, Value]:
    joint = eigh(a, UPLO.upper() == "L")
    return joint[..., 0, :], joint[..., 1:, :]


# -- singular values -----------------------------------------------------------------------------------------


def _over_values(outside: Value, s: Value) -> Value:
    """Divided by the singular values; nothing divided by 0 is nothing, as in :func:`_over_gaps`."""
    nothing = (raw(outside) == 0) & (raw(_row(s)) == 0)
    return torch.where(nothing, 0.0, outside / torch.where(nothing, 1.0, _row(s)))


def _svd_vjp(g: Value, ans: Value, rows: int) -> Value:
    """U [(Uᵀg_U skew / E) S + S (Vᵀg_V skew / E) + diag(g_S)] Vᵀ and what lies outside of U and V."""
    u, s, v = ans[..., :rows, :], ans[..., rows, :], ans[..., rows + 1 :, :]
    g_u, g_s, g_v = g[..., :rows, :], g[..., rows, :], g[..., rows + 1 :, :]

    def skew(a: Value) -> Value:
        return a - _t(a)

    inner = torch.diag_embed(g_s)
    inner = inner + _over_gaps(skew(_t(u) @ g_u), s * s) * _row(s)
    inner = inner + s.unsqueeze(-1) * _over_gaps(skew(_t(v) @ g_v), s * s)
    result = u @ inner @ _t(v)
    if u.shape[-2] > u.shape[-1]:
        outside = g_u - u @ (_t(u) @ g_u)
        result = result + _over_values(outside, s) @ _t(v)
    if v.shape[-2] > v.shape[-1]:
        outside = g_v - v @ (_t(v) @ g_v)
        result = result + u @ _t(_over_values(outside, s))
    return result


def _svd_jvp(a_dot: Value, ans: Value, rows: int) -> Value:
    u, s, v = ans[..., :rows, :], ans[..., rows, :], ans[..., rows + 1 :, :]
    change = _t(u) @ a_dot @ v
    left, right = change * _row(s), s.unsqueeze(-1) * change
    u_dot = u @ _over_gaps(left + _t(left), s * s)
    v_dot = v @ _over_gaps(right + _t(right), s * s)
    if u.shape[-2] > u.shape[-1]:
        u_dot = u_dot + (a_dot @ v - u @ change) / _row(s)
    if v.shape[-2] > v.shape[-1]:
        v_dot = v_dot + (_t(a_dot) @ u - v @ _t(change)) / _row(s)
    return torch.cat([u_dot, _row(torch.diagonal(change, 0, -2, -1)), v_dot], -2)


@primitive(a=_svd_vjp, jvp=_svd_jvp)
def svd(a: Tensor, rows: int) -> Tensor:
    """U, below it the singular values as a row, below it V; thin."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return torch.cat([u, _row(s), _t(vh)], -2)


@stands_for("_linalg_svd")
def _linalg_svd(
    a: Value, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None
) -> tuple[Value, Value, Value]:
    rows, columns = a.shape[-2:]
    joint = svd(a, rows)
    u, s, v = joint[..., :rows, :], joint[..., rows, :], joint[..., rows + 1 :, :]
    if (
        full_matrices and compute_uv and rows != columns
    ):  # the other columns are any, and constants as in torch
        all_u, _, all_vh = torch.linalg.svd(raw(a))
        u = torch.cat([u, all_u[..., s.shape[-1] :]], -1)
        v = torch.cat([v, _t(all_vh)[..., s.shape[-1] :]], -1)
    return u, s, _t(v)


# -- QR ------------------------------------------------------------------------------------------------------


def _mirrored(a: Value) -> Value:
    """The lower triangle, copied onto the upper one."""
    return torch.tril(a) + _t(torch.tril(a, -1))


def _qr_vjp(g: Value, ans: Value, rows: int) -> Value:
    q, r = ans[..., :rows, :], _t(ans[..., rows:, :])
    g_q, g_r = g[..., :rows, :], _t(g[..., rows:, :])
    k = r.shape[-2]
    if r.shape[-1] == k:
        middle = g_q + q @ _mirrored(r @ _t(g_r) - _t(g_q) @ q)
        return _t(solve_triangular(r, _t(middle), True))
    # Wide: the first k columns are decomposed, the others are only multiplied by Qᵀ.
    r1, r2, g_r1, g_r2 = r[..., :k], r[..., k:], g_r[..., :k], g_r[..., k:]
    g_q = g_q + q @ r2 @ _t(g_r2)  # R₂ = Qᵀ A₂, and A₂ = Q R₂
    middle = g_q + q @ _mirrored(r1 @ _t(g_r1) - _t(g_q) @ q)
    return torch.cat([_t(solve_triangular(r1, _t(middle), True)), q @ g_r2], -1)


@primitive(a=_qr_vjp)
def qr(a: Tensor, rows: int) -> Tensor:
    """Q, below it R transposed."""
    q, r = torch.linalg.qr(a)
    return torch.cat([q, _t(r)], -2)


@stands_for("linalg_qr")
def _linalg_qr(a: Value, mode: str = "reduced") -> tuple[Value, Value]:
    rows, columns = a.shape[-2:]
    if mode == "r" or (mode == "complete" and rows > columns):
        raise NotImplementedError(f"qr(mode={mode!r}) has no derivative, as in torch; use mode='reduced'")
    joint = qr(a, rows)
    return joint[..., :rows, :], _t(joint[..., rows:, :])


def _reflected(a: Value, tau: Value, x: Value, transpose: bool = False) -> Value:
    """H₁ H₂ ... X (transposed: ... H₂ H₁ X) with Hᵢ = 1 - τᵢ vᵢ vᵢᵀ; vᵢ is 1, then what a has below."""
    below = torch.tril(a, -1) + torch.eye(*a.shape[-2:], dtype=a.dtype, device=raw(a).device)
    order = range(tau.shape[-1])
    for i in order if transpose else reversed(order):
        v = below[..., i : i + 1]
        x = x - tau[..., i, None, None] * v @ (_t(v) @ x)
    return x


@stands_for("linalg_householder_product", "orgqr")
def _householder_product(a: Value, tau: Value) -> Value:
    identity = torch.eye(*a.shape[-2:], dtype=a.dtype, device=raw(a).device)
    return _reflected(a, tau, identity.expand(a.shape))


@stands_for("ormqr")
def _ormqr(a: Value, tau: Value, x: Value, left: bool = True, transpose: bool = False) -> Value:
    return _reflected(a, tau, x, transpose) if left else _t(_reflected(a, tau, _t(x), not transpose))


# -- LU ------------------------------------------------------------------------------------------------------


def _lu_vjp(g: Value, ans: Value, permutation: Tensor) -> Value:
    """P A = L U, both in one square matrix: L⁻ᵀ [tril(Lᵀ g_L, -1) + triu(g_U Uᵀ)] U⁻ᵀ"""
    lower = torch.tril(ans, -1) + torch.eye(ans.shape[-1], dtype=ans.dtype, device=raw(ans).device)
    upper = torch.triu(ans)
    middle = torch.tril(_t(lower) @ torch.tril(g, -1), -1) + torch.triu(torch.triu(g) @ _t(upper))
    left = solve_triangular(_t(lower), middle, True, True)
    return permutation @ _t(solve_triangular(upper, _t(left), True))


@primitive(a=_lu_vjp)
def lu(a: Tensor, permutation: Tensor) -> Tensor:
    """L without its ones and U, in one matrix."""
    return torch.linalg.lu_factor_ex(a).LU  # type: ignore[no-any-return]


@stands_for("linalg_lu_factor_ex")
def _lu_factor_ex(
    a: Value, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Value, Tensor, Tensor]:
    factors, pivots, info = torch.linalg.lu_factor_ex(raw(a), pivot=pivot, check_errors=check_errors)
    if a.shape[-1] != a.shape[-2] or not pivot:
        raise NotImplementedError("lu_factor of a matrix that is not square, or without pivots")
    permutation = torch.lu_unpack(factors, pivots, unpack_data=False)[0]
    joint: Value = lu(a, permutation)
    return joint, pivots, info


@stands_for("linalg_lu")
def _linalg_lu(a: Value, *, pivot: bool = True) -> tuple[Tensor, Value, Value]:
    joint, pivots, _ = _lu_factor_ex(a, pivot=pivot)
    permutation, lower, upper = _lu_unpack(joint, pivots)
    return permutation, lower, upper


@stands_for("lu_unpack")
def _lu_unpack(
    joint: Value, pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Value, Value]:
    permutation, *_ = torch.lu_unpack(raw(joint), pivots, unpack_data, unpack_pivots)
    k = min(joint.shape[-2:])
    identity = torch.eye(joint.shape[-2], k, dtype=joint.dtype, device=raw(joint).device)
    lower = torch.tril(joint[..., :, :k], -1) + identity
    return permutation, lower, torch.triu(joint[..., :k, :])


@stands_for("linalg_lu_solve")
def _lu_solve(joint: Value, pivots: Tensor, b: Value, *, left: bool = True, adjoint: bool = False) -> Value:
    """X with A X = B (or X A = B, or with Aᵀ), from the factors of A."""
    permutation, lower, upper = _lu_unpack(joint, pivots)
    if not left:
        return _t(_lu_solve(joint, pivots, _t(b), left=True, adjoint=not adjoint))
    if adjoint:
        y = solve_triangular(_t(lower), solve_triangular(_t(upper), b, False), True, True)
        return permutation @ y
    return solve_triangular(upper, solve_triangular(lower, _t(permutation) @ b, False, True), True)
