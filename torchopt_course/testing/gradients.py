"""The gradient of one function, four ways, compared element by element.

==========  ================================================================
reverse     our reverse mode
forward     our forward mode
numerical   central differences (of the values, or of the next lower order)
torch       torch.autograd
==========  ================================================================

Three of them agreeing leaves little doubt about the fourth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .. import autograd as mini
from ..autograd.numerical import slope
from ..autograd.traced import Value, is_tensor, raw
from .culprit import DIFFERENCES, EXACT, culprit

MOST_ELEMENTS = 24  # of each input; of larger ones this many are drawn by lot


class GradientError(AssertionError):
    """Two ways give different gradients; the message says which, where, by how much."""


@dataclass(frozen=True)
class Way:
    """One way to differentiate a scalar function of tensors: some elements of its gradient."""

    name: str
    gradients: list[Tensor]  # per input, the compared elements
    tolerance: float


def assert_gradients_agree(
    f: Callable[..., Any] | nn.Module, *inputs: Any, order: int = 2, tolerance: float | None = None,
    numerical: bool = True, seed: int = 0,
) -> None:  # fmt: skip
    """Check that reverse mode, forward mode, finite differences and torch.autograd agree on f's derivatives.

    Order 1 compares the gradient of s₁ = ⟨u, f(x)⟩ for a random u, order 2 that of s₂ = ⟨v, ∇s₁(x)⟩, and
    so on: no derivative of f escapes a random direction. Functions may draw random numbers: each
    evaluation starts from ``seed``.

    Args:
        f: a function of tensors, written with torch's functions, that returns a tensor (or a tuple, list or
            dict of tensors); or a module, whose parameters are then checked as well. Buffers of a module are
            left as they are.
        inputs: its arguments. Floating-point tensors are differentiated, everything else is passed on.
        order: how many orders to check, 1 or more.
        tolerance: relative to the largest element of a gradient, for the exact ways (default 1e-9 in float64,
            1e-4 in float32).
        numerical: compare with finite differences too.
        seed: for the directions and for random numbers in f.

    Raises:
        GradientError: an ``AssertionError``: two ways disagree. It says which, at which element, by how much,
            and which operation is to blame, if one is wrong on its own.
        ValueError: nothing to differentiate, or an order below 1.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    problem = _Problem(f, inputs, seed)
    if not problem.leaves:
        raise ValueError("nothing to differentiate: no floating-point tensor among the inputs")
    for k in range(1, order + 1):
        ways = [problem.by_reverse(k), problem.by_forward(k), problem.by_torch(k)]
        if numerical:
            ways.append(problem.by_differences(k))
        _compare(ways, problem, k, tolerance)


class _Problem:
    """A function, the tensors to differentiate, and fixed random directions."""

    def __init__(self, f: Callable[..., Any] | nn.Module, inputs: Sequence[Any], seed: int) -> None:
        self.f, self.seed = f, seed
        flat, self.spec = pytree.tree_flatten(tuple(inputs))
        self.flat = flat
        self.positions = [i for i, x in enumerate(flat) if is_tensor(x) and x.dtype.is_floating_point]
        self.names = [f"input {i}" for i in range(len(self.positions))]
        self.leaves = [raw(flat[i]).detach().clone() for i in self.positions]
        self.parameters: list[str] = []
        if isinstance(f, nn.Module):
            self.parameters = [name for name, p in f.named_parameters() if p.is_floating_point()]
            own = dict(f.named_parameters())
            self.leaves += [own[name].detach().clone() for name in self.parameters]
            self.names += self.parameters
        self.dtype = max(
            (x.dtype for x in self.leaves), key=lambda d: torch.finfo(d).eps, default=torch.float64
        )
        generator = torch.Generator().manual_seed(seed)
        # Some elements of each input, the same for all ways.
        self.elements = [
            torch.randperm(x.numel(), generator=generator)[:MOST_ELEMENTS].sort().values for x in self.leaves
        ]
        self.directions = [
            [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in self.leaves]
            for _ in range(8)
        ]

    def call(self, leaves: Sequence[Value]) -> Value:
        """⟨u, f(leaves)⟩ with the same random numbers each time."""
        flat = list(self.flat)
        for i, x in zip(self.positions, leaves, strict=False):
            flat[i] = x
        args = pytree.tree_unflatten(flat, self.spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if isinstance(self.f, nn.Module):
                values = dict(zip(self.parameters, leaves[len(self.positions) :], strict=True))
                like = raw(leaves[0]).dtype
                for name, buffer in self.f.named_buffers():
                    values[name] = buffer.to(like) if buffer.is_floating_point() else buffer.clone()
                    values[name] = values[name].clone()
                output = mini.functional_call(self.f, values, args)
            else:
                output = self.f(*args)
        generator = torch.Generator().manual_seed(self.seed + 1)
        total: Value = 0.0
        for y in pytree.tree_leaves(output):
            if is_tensor(y) and y.dtype.is_floating_point:
                u = torch.randn(tuple(y.shape), generator=generator, dtype=torch.float64)
                total = total + (y * u.to(raw(y).device, y.dtype)).sum()
        if not is_tensor(total):
            raise ValueError("f returned no floating-point tensor")
        return total

    def direction(self, k: int) -> list[Tensor]:
        return [v.to(x.device, x.dtype) for v, x in zip(self.directions[k % 8], self.leaves, strict=True)]

    def scalar(self, k: int) -> Callable[..., Value]:
        """s_k by reverse mode: s₁ = ⟨u, f⟩, s_{k+1} = ⟨v, ∇s_k⟩."""
        if k == 1:
            return lambda *leaves: self.call(leaves)
        lower = mini.grad(self.scalar(k - 1), argnums=tuple(range(len(self.leaves))))

        def contracted(*leaves: Value) -> Value:
            total: Value = 0.0
            for g, v in zip(lower(*leaves), self.direction(k - 1), strict=True):
                total = total + (g * v.to(g.dtype)).sum()
            return total

        return contracted

    def _pick(self, gradients: Sequence[Value]) -> list[Tensor]:
        return [raw(g).reshape(-1)[e].double() for g, e in zip(gradients, self.elements, strict=True)]

    def by_reverse(self, k: int) -> Way:
        gradients = mini.grad(self.scalar(k), argnums=tuple(range(len(self.leaves))))(*self.leaves)
        return Way("reverse", self._pick(gradients), EXACT.get(self.dtype, 2e-2))

    def by_forward(self, k: int) -> Way:
        function, zeros = self.scalar(k), [torch.zeros_like(x) for x in self.leaves]
        result = []
        for i, (x, elements) in enumerate(zip(self.leaves, self.elements, strict=True)):
            slopes = []
            for e in elements.tolist():
                one = torch.zeros_like(x, memory_format=torch.contiguous_format)
                one.view(-1)[e] = 1
                along = (*zeros[:i], one, *zeros[i + 1 :])
                slopes.append(float(raw(mini.jvp(function, tuple(self.leaves), along)[1])))
            result.append(torch.tensor(slopes, dtype=torch.float64))
        return Way("forward", result, EXACT.get(self.dtype, 2e-2))

    def by_torch(self, k: int) -> Way:
        leaves = [x.clone().requires_grad_() for x in self.leaves]
        s = self.call(leaves)
        for order in range(1, k + 1):
            gradients: Sequence[Tensor] = [torch.zeros_like(x) for x in leaves]
            if s.requires_grad:
                gradients = torch.autograd.grad(s, leaves, create_graph=order < k, materialize_grads=True)
            s = torch.stack(
                [(g * v).sum() for g, v in zip(gradients, self.direction(order), strict=True)]
            ).sum()
        return Way("torch", self._pick([g.detach() for g in gradients]), EXACT.get(self.dtype, 2e-2))

    def by_differences(self, k: int) -> Way:
        """Differences of s_k, in float64 if f allows it: those of float32 values have three digits."""
        leaves, tolerance = [x.double() for x in self.leaves], DIFFERENCES[torch.float64]
        function = self.scalar(k)
        try:
            with torch.no_grad():
                self.call(leaves)
        except RuntimeError:
            leaves, tolerance = self.leaves, DIFFERENCES.get(self.dtype, 0.1)
        if self.dtype != torch.float64:
            tolerance = max(tolerance, EXACT.get(self.dtype, 2e-2))
        result = []
        for i, elements in enumerate(self.elements):

            def value(moved: Tensor, i: int = i) -> float:
                return float(raw(function(*leaves[:i], moved, *leaves[i + 1 :])))

            slopes = [slope(value, leaves[i], e) for e in elements.tolist()]
            result.append(torch.tensor(slopes, dtype=torch.float64))
        return Way("numerical", result, tolerance)


def _compare(ways: list[Way], problem: _Problem, k: int, tolerance: float | None) -> None:
    largest = max([float(g.abs().max()) for way in ways for g in way.gradients if g.numel()], default=0.0)
    scale = largest if largest > 0 and largest < float("inf") else 1.0
    scale = max(scale, 1e-3)  # a gradient that is zero but for rounding

    def apart(a: Way, b: Way) -> tuple[float, int, int]:
        """The largest difference relative to what is allowed, in which input, at which compared element."""
        allowed = max(
            way.tolerance if tolerance is None or way.name == "numerical" else tolerance for way in (a, b)
        )
        worst = (0.0, 0, 0)
        for i, (x, y) in enumerate(zip(a.gradients, b.gradients, strict=True)):
            if x.numel():
                same = (x == y) | (x.isnan() & y.isnan())
                ratio = torch.where(same, 0.0, (x - y).abs() / (allowed * scale)).nan_to_num(nan=float("inf"))
                j = int(ratio.argmax())
                worst = max(worst, (float(ratio[j]), i, j))
        return worst

    pairs = {(a.name, b.name): apart(a, b) for n, a in enumerate(ways) for b in ways[n + 1 :]}
    bad = {pair: worst for pair, worst in pairs.items() if worst[0] > 1}
    if not bad:
        return
    _, i, j = max(bad.values())
    outliers = [way.name for way in ways if all(way.name in pair for pair in bad)]
    if len(ways) > 2 and len(outliers) == 1:
        who = f"{outliers[0]} disagrees with {', '.join(w.name for w in ways if w.name != outliers[0])}"
    else:
        who = "; ".join(f"{a} and {b} disagree" for a, b in bad)
    place = int(problem.elements[i][j])
    shape = problem.leaves[i].shape
    index = tuple(int(n) for n in torch.unravel_index(torch.tensor(place), shape)) if shape else ()
    values = "\n".join(f"    {way.name:<10} {float(way.gradients[i][j]):.12g}" for way in ways)
    spread = [float(way.gradients[i][j]) for way in ways]
    blame = culprit(problem.call, problem.leaves)
    raise GradientError(
        f"gradients of order {k}: {who}\n"
        f"  at element {index} of {problem.names[i]} {tuple(shape)}, "
        f"{max(spread) - min(spread):.3g} apart:\n{values}\n"
        f"  {blame or 'each operation on its own agrees with torch.autograd, so none could be singled out'}"
    )
