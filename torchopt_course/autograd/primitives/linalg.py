"""Linear algebra: inverse, determinant, equations, Cholesky.

Sources: Giles, *Collected matrix derivative results for forward and reverse mode*, 2008; Murray,
*Differentiation of the Cholesky decomposition*, 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..decompose import stands_for
from ..traced import Value, raw
from .flat import unmoved
from .table import primitive


def _t(a: Value) -> Value:
    return a.transpose(-2, -1)


# -- inverse and equations -----------------------------------------------------------------------------------


@primitive(
    a=lambda g, ans: -_t(ans) @ g @ _t(ans),
    jvp=lambda a_dot, ans: -ans @ a_dot @ ans,
)
def inverse(a: Tensor) -> Tensor:
    """Without a look at whether there is one: torch.linalg.inv looks, inv_ex leaves it to who calls it."""
    return torch.linalg.inv_ex(a).inverse  # type: ignore[no-any-return]


def _solve_left(a: Value, b: Value) -> Value:
    """A⁻¹ B for a matrix or stack of matrices B."""
    return solve(a, b)


@primitive(
    # X = A⁻¹ B: the gradient of B is A⁻ᵀ G, that of A is -(A⁻ᵀ G) Xᵀ.
    a=lambda g, a, ans: -_solve_left(_t(a), g) @ _t(ans),
    b=lambda g, a: _solve_left(_t(a), g),
    jvp=lambda a, ans, a_dot, b_dot: _solve_left(a, b_dot - a_dot @ ans),
)
def solve(a: Tensor, b: Tensor) -> Tensor:
    """X with A X = B, of matrices; as above without a look at whether there is one."""
    return torch.linalg.solve_ex(a, b).result  # type: ignore[no-any-return]


def _transposed(g: Value, a: Value, upper: bool, unitriangular: bool) -> Value:
    return solve_triangular(_t(a), g, not upper, unitriangular)


def _triangle(g: Value, upper: bool, unitriangular: bool) -> Value:
    """The part of the matrix that the equations read."""
    diagonal = 1 if unitriangular else 0
    return torch.triu(g, diagonal) if upper else torch.tril(g, -diagonal)


@primitive(
    a=lambda g, a, ans, upper, unitriangular: _triangle(
        -_transposed(g, a, upper, unitriangular) @ _t(ans), upper, unitriangular
    ),
    b=lambda g, a, upper, unitriangular: _transposed(g, a, upper, unitriangular),
)
def solve_triangular(a: Tensor, b: Tensor, upper: bool, unitriangular: bool = False) -> Tensor:
    return torch.linalg.solve_triangular(  # type: ignore[no-any-return]
        a, b, upper=upper, unitriangular=unitriangular
    )


def _pinv_vjp(g: Value, a: Value, ans: Value) -> Value:
    """-A⁺ᵀ G A⁺ᵀ, and what changes where A⁺ maps to and from (Golub and Pereyra, 1973)."""
    back, gt = _t(ans), _t(g)
    onto_rows = gt - (gt @ ans) @ a  # Gᵀ (1 - A⁺ A)
    off_columns = gt - a @ (ans @ gt)  # (1 - A A⁺) Gᵀ
    return -back @ g @ back + back @ ans @ onto_rows + off_columns @ ans @ back


@primitive(a=_pinv_vjp)
def pseudoinverse(a: Tensor, atol: Any, rtol: Any, hermitian: bool) -> Tensor:
    return torch.linalg.pinv(a, atol=atol, rtol=rtol, hermitian=hermitian)  # type: ignore[no-any-return]


def _exp_vjp(g: Value, a: Value) -> Value:
    """The upper right block of exp [[Aᵀ, G], [0, Aᵀ]]."""
    n, at = a.shape[-1], _t(a)
    upper = torch.cat([at, g], -1)
    lower = torch.cat([torch.zeros_like(at), at], -1)
    return matrix_exp(torch.cat([upper, lower], -2))[..., :n, n:]


@primitive(a=_exp_vjp)
def matrix_exp(a: Tensor) -> Tensor:
    return torch.linalg.matrix_exp(a)  # type: ignore[no-any-return]


# -- determinants --------------------------------------------------------------------------------------------


def _cofactors(a: Value, ans: Value) -> Value:
    """The gradient of det A: det(A) A⁻ᵀ, and where A has no inverse the limit of that, from its SVD."""
    if bool((raw(ans) != 0).all()):
        return ans.unsqueeze(-1).unsqueeze(-1) * _t(torch.linalg.inv(a))
    u, s, vh = torch.linalg.svd(a)
    others = torch.where(torch.eye(s.shape[-1], dtype=torch.bool, device=raw(s).device), 1.0, s.unsqueeze(-2))
    sign = torch.linalg.det(u.detach()) * torch.linalg.det(vh.detach())
    return (u * others.prod(-1).unsqueeze(-2)) @ vh * sign.unsqueeze(-1).unsqueeze(-1)


@primitive(a=lambda g, a, ans: g.unsqueeze(-1).unsqueeze(-1) * _cofactors(a, ans))
def determinant(a: Tensor) -> Tensor:
    return torch.linalg.det(a)  # type: ignore[no-any-return]


@primitive(a=lambda g, a: g.unsqueeze(-1).unsqueeze(-1) * _t(inverse(a)))
def log_determinant(a: Tensor) -> Tensor:
    """ln |det A|"""
    return torch.linalg.slogdet(a).logabsdet  # type: ignore[no-any-return]


# -- Cholesky ------------------------------------------------------------------------------------------------


def _half(a: Value) -> Value:
    """The lower triangle, with half of the diagonal."""
    return torch.tril(a) - 0.5 * torch.diag_embed(torch.diagonal(a, 0, -2, -1))


def _cholesky_vjp(g: Value, ans: Value) -> Value:
    """A = L Lᵀ: L⁻ᵀ Φ(Lᵀ G) L⁻¹, made symmetric; Φ takes the lower half."""
    middle = _half(_t(ans) @ g)
    middle = 0.5 * (middle + _t(middle))
    # From both sides: L⁻ᵀ M L⁻¹.
    left = solve_triangular(_t(ans), middle, True)
    return _t(solve_triangular(_t(ans), _t(left), True))


@primitive(
    a=_cholesky_vjp,
    jvp=lambda a_dot, ans: (
        ans
        @ _half(_t(solve_triangular(ans, _t(solve_triangular(ans, 0.5 * (a_dot + _t(a_dot)), False)), False)))
    ),
)
def cholesky(a: Tensor) -> Tensor:
    """Lower triangular L with L Lᵀ = A, as above. Of A the mean with its transpose counts."""
    return torch.linalg.cholesky_ex(a).L  # type: ignore[no-any-return]


# -- the same as torch's composite functions call them -------------------------------------------------------


@stands_for("linalg_inv_ex")
def _inv_ex(a: Value, check_errors: bool = False) -> tuple[Value, Tensor]:
    return inverse(a), torch.linalg.inv_ex(raw(a), check_errors=check_errors).info


@stands_for("_linalg_solve_ex")
def _solve_ex(a: Value, b: Value, left: bool = True, check_errors: bool = False) -> tuple[Any, ...]:
    """Also from the right, and for a vector."""
    vector = len(b.shape) == 1 or (len(b.shape) == len(a.shape) - 1 and b.shape == a.shape[:-1])
    if vector:
        b = b.unsqueeze(-1)
    x = solve(a, b) if left else _t(solve(_t(a), _t(b)))
    factors = torch.ops.aten._linalg_solve_ex(raw(a), raw(b), left=left, check_errors=check_errors)[1:]
    return x.squeeze(-1) if vector else x, *factors


@stands_for("linalg_solve_triangular")
def _solve_triangular(
    a: Value, b: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    if left:
        return solve_triangular(a, b, upper, unitriangular)
    return _t(solve_triangular(_t(a), _t(b), not upper, unitriangular))


@stands_for("triangular_solve")
def _old_triangular_solve(
    b: Value, a: Value, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Value, Value]:
    x = solve_triangular(_t(a) if transpose else a, b, upper != transpose, unitriangular)
    return x, a.expand(*x.shape[:-2], *a.shape[-2:]).clone()


@stands_for("linalg_pinv")
def _pinv(a: Value, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Value:
    return pseudoinverse(a, raw(atol), raw(rtol), hermitian)


@stands_for("linalg_lstsq")
def _lstsq(a: Value, b: Value, rcond: Any = None, *, driver: str | None = None) -> tuple[Any, ...]:
    """A⁺ B is the solution with the smallest norm."""
    _, residuals, rank, values = torch.ops.aten.linalg_lstsq(raw(a), raw(b), rcond, driver=driver)
    if rcond is not None and bool((rank < min(a.shape[-2:])).any()):
        raise NotImplementedError(f"lstsq(rcond={rcond}), which takes the matrix for one of lower rank")
    vector = len(b.shape) == len(a.shape) - 1
    right = b.unsqueeze(-1) if vector else b
    x = pseudoinverse(a, None, None, False) @ right
    residuals = torch.square(a @ x - right).sum(-2) if residuals.numel() else unmoved(residuals, a)
    return x.squeeze(-1) if vector else x, residuals, rank, values


@stands_for("linalg_matrix_exp")
def _matrix_exp(a: Value) -> Value:
    return matrix_exp(a)


@stands_for("_linalg_det")
def _det(a: Value) -> tuple[Value, Any, Any]:
    return determinant(a), *torch.ops.aten._linalg_det(raw(a))[1:]


@stands_for("_linalg_slogdet")
def _slogdet(a: Value) -> tuple[Any, ...]:
    sign, _, *factors = torch.ops.aten._linalg_slogdet(raw(a))
    return unmoved(sign, a), log_determinant(a), *factors


@stands_for("linalg_cholesky_ex")
def _cholesky_ex(a: Value, *, upper: bool = False, check_errors: bool = False) -> tuple[Value, Tensor]:
    info = torch.linalg.cholesky_ex(raw(a), upper=upper, check_errors=check_errors).info
    lower = cholesky(_t(a) if upper else a)
    return (_t(lower) if upper else lower), info


@stands_for("cholesky")
def _cholesky(a: Value, upper: bool = False) -> Value:
    return _cholesky_ex(a, upper=upper, check_errors=True)[0]


@stands_for("cholesky_solve")
def _cholesky_solve(b: Value, factor: Value, upper: bool = False) -> Value:
    lower = _t(factor) if upper else factor
    lower = torch.tril(lower)
    return solve_triangular(_t(lower), solve_triangular(lower, b, False), True)


@stands_for("cholesky_inverse")
def _cholesky_inverse(factor: Value, upper: bool = False) -> Value:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=raw(factor).device)
    return _cholesky_solve(identity.expand(factor.shape), factor, upper)
