"""Adam, Lion and LAMB as chains of heavyball's; each function gets and gives lists of tensors."""

from __future__ import annotations

from typing import Any

import heavyball.chainable as C
import torch


@C.zero_guard("exp_avg", "exp_avg_sq")
@C.no_state
def scale_by_adam(group: Any, update: Any, grad: Any, param: Any, exp_avg: Any, exp_avg_sq: Any) -> Any:
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(exp_avg, update, 1 - beta1)
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, update, update, value=1 - beta2)
    first, second = (1 - beta ** group["step"] for beta in (beta1, beta2))
    eps = group["eps"]
    return [m / first / ((v / second).sqrt() + eps) for m, v in zip(exp_avg, exp_avg_sq, strict=True)]


@C.zero_guard("exp_avg")
@C.no_state
def scale_by_lion(group: Any, update: Any, grad: Any, param: Any, exp_avg: Any) -> Any:
    beta1, beta2 = group["betas"]
    signs = [m.lerp(g, 1 - beta1).sign() for m, g in zip(exp_avg, update, strict=True)]
    torch._foreach_lerp_(exp_avg, update, 1 - beta2)
    return signs


@C.no_state
def trust_ratio(group: Any, update: Any, grad: Any, param: Any) -> Any:
    new = []
    for u, p in zip(update, param, strict=True):
        u = u + group["decay"] * p
        trust = p.norm() / u.norm()
        new.append(torch.where((trust > 0) & trust.isfinite(), trust, 1.0) * u)
    return new


class Adam(C.BaseOpt):  # type: ignore[misc]
    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, **COMMON}
        super().__init__(params, defaults, fns=(scale_by_adam,), compile_step=True)


class Lion(C.BaseOpt):  # type: ignore[misc]
    def __init__(
        self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, **COMMON}
        super().__init__(params, defaults, fns=(scale_by_lion,), compile_step=True)


class LAMB(C.BaseOpt):  # type: ignore[misc]
    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Any = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "decay": weight_decay, **COMMON}
        super().__init__(params, defaults, fns=(scale_by_adam, trust_ratio), compile_step=True)


# By default a step takes the gradients away, and the next one has nothing to do.
COMMON = {"multi_tensor": True, "consume_grad": False, "storage_dtype": "float32"}
