"""A function under test: what is differentiated, in which directions, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .. import autograd as mini
from ..autograd.refusals import same_random_numbers
from ..autograd.traced import Value, is_tensor, raw
from .watch import operations


class Problem:
    """The functions f₁ = f, f₂ = ∇⟨u₁, f₁⟩, f₃ = ∇⟨u₂, f₂⟩, ... of the leaves.

    The directions u, and t for the leaves, are random, but no element of them is small: none escapes.

    Attributes:
        leaves: the floating-point tensors among the inputs, and a module's parameters.
        names: of the leaves.
        t: a direction to move the leaves in, for each about as large as it is itself.
    """

    def __init__(
        self,
        f: Callable[..., Any] | nn.Module,
        inputs: Sequence[Any],
        seed: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.f, self.seed, self.dtype = f, seed, dtype
        flat, self.spec = pytree.tree_flatten(tuple(inputs))
        _refuse_complex(flat, "inputs")
        self.flat = flat
        self.positions = [i for i, x in enumerate(flat) if is_tensor(x) and x.dtype.is_floating_point]
        self.names = [f"input {i}" for i in range(len(self.positions))]
        leaves = [raw(flat[i]) for i in self.positions]
        self.parameters: list[str] = []
        if isinstance(f, nn.Module):
            own = {name: p for name, p in f.named_parameters() if p.is_floating_point()}
            self.parameters = list(own)
            leaves += own.values()
            self.names += self.parameters
        self.leaves = [
            x.detach().clone() if dtype is None else x.detach().to(dtype, copy=True) for x in leaves
        ]
        self.t = [_direction(x, seed + n, size=_size(x)) for n, x in enumerate(self.leaves)]
        self.operations = operations(self, self.leaves) if self.leaves else []
        self.visible = all(op.visible for op in self.operations)

    @property
    def coarsest(self) -> torch.dtype:
        """The dtype with the fewest digits, of the leaves and of what f computes on the way."""
        dtypes = {x.dtype for x in self.leaves} | {op.dtype for op in self.operations}
        real = [dtype for dtype in dtypes if dtype.is_floating_point]
        coarsest: torch.dtype = max(real, key=lambda dtype: torch.finfo(dtype).eps)
        return coarsest

    def __call__(self, *leaves: Value) -> list[Value]:
        """f₁: the floating-point results, with the same random numbers each time."""
        copies = [x.clone() for x in leaves]  # f may change its arguments in place
        flat = list(self.flat)
        for i, x in zip(self.positions, copies, strict=False):
            flat[i] = x
        if self.dtype is not None:
            flat = [x.to(self.dtype) if is_tensor(x) and x.dtype.is_floating_point else x for x in flat]
        args = pytree.tree_unflatten(flat, self.spec)
        with same_random_numbers(self.leaves):
            torch.manual_seed(self.seed)
            if isinstance(self.f, nn.Module):
                values: dict[str, Value] = {}
                for name, buffer in self.f.named_buffers():  # as they are, however often f is called
                    cast = self.dtype is not None and buffer.is_floating_point()
                    values[name] = buffer.to(self.dtype, copy=True) if cast else buffer.clone()
                values |= zip(self.parameters, copies[len(self.positions) :], strict=True)
                output = mini.functional_call(self.f, values, args)
            else:
                output = self.f(*args)
        _refuse_complex(pytree.tree_leaves(output), "results")
        results = [y for y in pytree.tree_leaves(output) if is_tensor(y) and y.dtype.is_floating_point]
        if not results:
            raise ValueError("f returned no floating-point tensor")
        return results

    def u(self, k: int, results: Sequence[Value]) -> list[Tensor]:
        """The direction for the results of f_k; from the second on they are shaped as the leaves."""
        if k == 2:
            return self.t
        return [_direction(raw(y), self.seed + 1000 * k + n) for n, y in enumerate(results)]

    def scalar(self, k: int) -> Callable[..., Value]:
        """⟨u_k, f_k⟩."""

        def contracted(*leaves: Value) -> Value:
            results = self.function(k)(*leaves)
            return dot(self.u(k, results), results)

        return contracted

    def function(self, k: int) -> Callable[..., Sequence[Value]]:
        """f_k, by reverse mode."""
        if k == 1:
            return self
        return mini.grad(self.scalar(k - 1), argnums=tuple(range(len(self.leaves))))

    # -- derivatives of f_k ------------------------------------------------------------------------------

    def values(self, k: int, leaves: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad() if k == 1 else torch.enable_grad():
            return [raw(y).detach() for y in self.function(k)(*leaves)]

    def by_reverse(self, k: int, leaves: Sequence[Tensor] | None = None) -> list[Tensor]:
        """∇⟨u_k, f_k⟩."""
        return self.values(k + 1, self.leaves if leaves is None else leaves)

    def by_forward(self, k: int, t: Sequence[Tensor]) -> list[Tensor]:
        """The derivative of f_k along t."""
        _, tangents = mini.jvp(lambda *leaves: tuple(self.function(k)(*leaves)), tuple(self.leaves), tuple(t))
        return [raw(y).detach() for y in tangents]

    def by_reverse_over_forward(self) -> list[Tensor]:
        """∇⟨u₂, f₂⟩ once more: as u₂ is t, it is the gradient of the derivative of ⟨u₁, f⟩ along t."""

        def moved(*leaves: Value) -> Value:
            return mini.jvp(self.scalar(1), leaves, tuple(self.t))[1]

        return [raw(g) for g in mini.grad(moved, argnums=tuple(range(len(self.leaves))))(*self.leaves)]

    def by_torch(self, k: int) -> list[Tensor] | None:
        """∇⟨u_k, f_k⟩ by torch.autograd; ``None`` if it cannot see into f, or has no such derivative."""
        if not self.visible:
            return None
        leaves = [x.clone().requires_grad_() for x in self.leaves]
        results: Sequence[Tensor] = self(*leaves)
        for order in range(1, k + 1):
            s = dot(self.u(order, results), results)
            if not s.requires_grad:
                results = [torch.zeros_like(x) for x in leaves]
                continue
            try:
                results = torch.autograd.grad(s, leaves, create_graph=order < k, materialize_grads=True)
            except RuntimeError as error:
                if "not implemented" not in str(error) and "not differentiable" not in str(error):
                    raise
                return None
        return [g.detach() for g in results]


def _refuse_complex(values: Sequence[Any], what: str) -> None:
    if any(is_tensor(value) and value.dtype.is_complex for value in values):
        raise TypeError(f"complex {what} have no derivatives here; take torch.view_as_real of them")


def dot(a: Sequence[Value], b: Sequence[Value]) -> Value:
    return sum(((x.to(y.dtype) * y).sum() for x, y in zip(a, b, strict=True)), start=0.0)


def _size(x: Tensor) -> Tensor | float:
    """How far to move each element: as its own size, but not much less than that of the others."""
    finite = torch.where(x.isfinite(), x, 0.0).double().abs()
    typical = float(finite.square().mean().sqrt()) if x.numel() else 0.0
    return finite.clamp(min=0.1 * typical) if typical else 1.0


def _direction(like: Tensor, seed: int, size: Tensor | float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    length = torch.rand(like.shape, generator=generator, dtype=torch.float64) + 0.5
    sign = torch.randint(0, 2, like.shape, generator=generator) * 2.0 - 1
    return ((length * sign).to(like.device) * size).to(like.dtype)
