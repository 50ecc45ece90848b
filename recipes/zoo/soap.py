"""SOAP: Adam in the eigenbasis of Shampoo's two matrices."""

import torch

from torchopt_course import TensorOptimizer


class SOAP(TensorOptimizer):
    """Adam on a gradient that is turned so that neither its rows nor its columns go together any more.

    m ← β₁ m + (1 - β₁) G
    s ← β₂ s + (1 - β₂) (Pᵀ G Q)²
    θ ← (1 - η λ) (θ - η P (Pᵀ m̂ Q / √ŝ) Qᵀ)
    L ← β₂ L + (1 - β₂) G Gᵀ                      R ← β₂ R + (1 - β₂) Gᵀ G

    P and Q are the eigenvectors of L and R. The first gradient makes them and nothing else. `every` so many
    steps they are renewed by a power iteration and a decomposition, P ← QR(L P), whose columns, and with them
    s, are first put in the order of L's eigenvalues. A vector is not turned, nor a side longer than `most`:
    there it is Adam. Of a tensor with more dimensions all but the first are taken as one.

    Source: Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, 2024, arXiv:2409.11321
    """

    states = ("exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis")

    def __init__(
        self, params, lr=3e-3, betas=(0.95, 0.95), eps=1e-8, weight_decay=0.01, every=10, most=10_000
    ):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, every=every, most=most)
        super().__init__(params, options)

    def check_options(self, options):
        super().check_options(options)
        if options["every"] < 1:
            raise ValueError(f"every is {options['every']}, expected 1 or more")

    def initial_state(self, name, param, group):
        if name.startswith("exp_avg"):
            return super().initial_state(name, param, group)
        matrix = as_matrix(param.detach())
        size = matrix.shape[0 if name.startswith("left") else 1]
        is_turned = param.dim() > 1 and 0 < size <= group["most"]
        return matrix.new_zeros(size, size) if is_turned else None

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay, every):
        t = max(step - 1, 1)
        return dict(
            size=lr * (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t), mix=1 - betas[0], fresh=1 - betas[1],
            eps=eps, decay=lr * weight_decay, begins=step == 1, is_renewed=t % every == 0,
        )  # fmt: skip

    @staticmethod
    def rule(
        p, g, exp_avg, exp_avg_sq, left, right, left_basis, right_basis,
        size, mix, fresh, eps, decay, begins, is_renewed,
    ):  # fmt: skip
        g, m, s = map(as_matrix, (g, exp_avg, exp_avg_sq))
        if not begins:
            # All that is given are copies: what ends in _ writes over them.
            m = m.lerp_(g, mix)
            s = s.lerp_(turned(g, left_basis, right_basis).square(), fresh)
            update = turned(m, left_basis, right_basis) / s.sqrt().add_(eps)
            update = turned(update, left_basis, right_basis, back=True).view_as(p)
            p = p.sub_(update, alpha=size).mul_(1 - decay)
        if left is not None:
            left = left.lerp_(g @ g.mT, fresh)
            left_basis, order = basis_of(left, left_basis, begins, is_renewed)
            s = s[order]
        if right is not None:
            right = right.lerp_(g.mT @ g, fresh)
            right_basis, order = basis_of(right, right_basis, begins, is_renewed)
            s = s[:, order]
        return p, m.view_as(p), s.view_as(p), left, right, left_basis, right_basis


def as_matrix(x):
    """In float32 or better, which decompositions ask for; a vector is one column."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.flatten(1) if x.dim() > 1 else x.reshape(-1, 1)


def turned(x, left, right, back=False):
    """Pᵀ x Q, or back: P x Qᵀ."""
    x = x if left is None else (left if back else left.mT) @ x
    return x if right is None else x @ (right.mT if back else right)


def basis_of(matrix, basis, begins, is_renewed):
    """The eigenvectors, and the old ones' order by the new eigenvalues."""
    if begins:
        return torch.linalg.eigh(matrix).eigenvectors.flip(1), slice(None)
    if not is_renewed:
        return basis, slice(None)
    product = matrix @ basis
    order = (basis * product).sum(dim=0).argsort(descending=True)
    return torch.linalg.qr(product[:, order]).Q, order
