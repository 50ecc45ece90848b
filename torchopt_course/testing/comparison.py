"""Whether the ways to differentiate agree, and where they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .differences import Differences, along, singularity
from .problem import Problem, dot


class Precision(NamedTuple):
    """How far two ways may be apart.

    Attributes:
        exact: exact ways, relative to each element; rounding is added as far as it can be measured.
        floor: relative to the largest element of the same gradient.
        rounding: how much of the largest element of all gradients rounding, once measured, may explain.
        differences: finite differences, relative; their own estimate of their error is added.
    """

    exact: float
    floor: float
    rounding: float
    differences: float


PRECISION = {
    torch.float64: Precision(1e-9, 1e-13, 1e-6, 1e-9),
    torch.float32: Precision(1e-4, 1e-5, 1e-3, 2e-2),
}
HALF = Precision(2e-2, 2e-2, 1e-1, 1e-1)
MOST_REMARKS = 4
FEW = 4  # leaves: then each of them is moved on its own by finite differences, too


class Disagreement(NamedTuple):
    """Where two ways differ: at an element of a leaf, or, if no element shows it, along a direction."""

    leaf: int
    element: int | None
    pair: tuple[str, str]


class Report(NamedTuple):
    """One element: what each way gives, how far it may be off, and why there may be no derivative."""

    values: dict[str, float]
    margins: dict[str, float]
    special: str | None


class Comparison:
    """All ways to differentiate f_k, of one problem.

    Attributes:
        remarks: places without a derivative, which are no mistake.
    """

    def __init__(self, problem: Problem, k: int, tolerance: float | None, numerical: bool) -> None:
        self.problem, self.k, self.numerical = problem, k, numerical
        self.precision = PRECISION.get(problem.coarsest, HALF)
        self.nothing = 8 * torch.finfo(problem.coarsest).eps  # zero, but for the rounding of numbers like 1
        if tolerance is not None:
            self.precision = self.precision._replace(exact=tolerance, floor=tolerance)
        self.remarks: dict[str, str] = {}
        self.reverse = problem.by_reverse(k)
        self.torch = problem.by_torch(k)
        self.mixed = problem.by_reverse_over_forward() if k == 2 else None
        self._rounding: list[Tensor] | None = None

    def first_disagreement(self) -> Disagreement | None:
        """The first one that is found, the strictest comparisons first."""
        for name, other in (("torch", self.torch), ("reverse over forward", self.mixed)):
            for i, (a, b) in enumerate(zip(self.reverse, other or (), strict=bool(other))):
                if (element := self._apart(i, a, b)) is not None:
                    return Disagreement(i, element, ("reverse", name))
        for i, g in enumerate(self.reverse):
            for element in (~g.isfinite()).flatten().nonzero().flatten().tolist()[:MOST_REMARKS]:
                if self.torch is None and self._moves_finitely(i, element):
                    return Disagreement(i, element, ("reverse", "forward"))
                self.remark(i, element, "the derivative is not finite here")
        return self._forward() or (self._differences() if self.numerical else None)

    def _moves_finitely(self, i: int, element: int) -> bool:
        moved = self.problem.by_forward(self.k, self.only(i, self._mask(i, [element])))
        return all(bool(y.isfinite().all()) for y in moved)

    def remark(self, leaf: int, element: int | None, words: str) -> None:
        place = "" if element is None else f"element {index(self.problem.leaves[leaf], element)} of "
        self.remarks.setdefault(place + self.problem.names[leaf], words)

    # -- element by element ------------------------------------------------------------------------------

    def _apart(self, i: int, a: Tensor, b: Tensor) -> int | None:
        """The element of leaf i at which two gradients are furthest apart, if that is too far."""
        a, b = a.double().flatten(), b.double().flatten()
        same = (a == b) | (a.isnan() & b.isnan())
        if bool(same.all()):
            return None
        allowed = self.precision.exact * torch.maximum(a.abs(), b.abs())
        allowed += self.precision.floor * _largest(a, b) + 1e-300
        ratio = torch.where(same, 0.0, (a - b).abs() / allowed).nan_to_num(nan=torch.inf)
        if bool((ratio > 1).any()):
            allowed += (20 * self.rounding()[i].flatten()).clamp(max=self.most_rounding) + self.nothing
            ratio = torch.where(same, 0.0, (a - b).abs() / allowed).nan_to_num(nan=torch.inf)
        worst = int(ratio.argmax())
        return worst if bool(ratio[worst] > 1) else None

    @property
    def most_rounding(self) -> float:
        """More than this is no rounding, but a kink that the inputs have crossed."""
        return self.precision.rounding * float(_largest(*[g.double() for g in self.reverse]))

    def rounding(self) -> list[Tensor]:
        """How much the gradients change when the inputs change in their last digits, measured when needed."""
        if self._rounding is None:
            self._rounding = [torch.zeros_like(x, dtype=torch.float64) for x in self.reverse]
            for seed in range(2):
                generator = torch.Generator().manual_seed(seed)
                moved = []
                for x in self.problem.leaves:
                    sign = torch.randint(0, 2, x.shape, generator=generator).to(x.device, x.dtype) * 2 - 1
                    moved.append(x * (1 + 2 * torch.finfo(x.dtype).eps * sign))
                for most, near, g in zip(
                    self._rounding, self.problem.by_reverse(self.k, moved), self.reverse, strict=True
                ):
                    apart = (near.double() - g.double()).abs().nan_to_num(nan=0.0, posinf=0.0)
                    most.copy_(torch.maximum(most, apart))
        return self._rounding

    # -- along directions --------------------------------------------------------------------------------

    def only(self, i: int, mask: Tensor | None = None) -> list[Tensor]:
        """The direction that moves leaf i only, or only some elements of it."""
        t = [torch.zeros_like(x) for x in self.problem.t]
        t[i] = (
            self.problem.t[i] if mask is None else self.problem.t[i] * mask.to(t[i].dtype).reshape(t[i].shape)
        )
        return t

    def _forward(self) -> Disagreement | None:
        """⟨u, J t⟩ by forward mode is ⟨Jᵀ u, t⟩ by reverse mode, for each leaf."""
        for i, g in enumerate(self.reverse):
            if g.isfinite().all() and g.numel() and self._duality(i, self.only(i)) > 1:
                element = self._locate(i, partial(self._masked_duality, i))
                return Disagreement(i, element, ("reverse", "forward"))
        return None

    def _masked_duality(self, i: int, mask: Tensor) -> float:
        return self._duality(i, self.only(i, mask))

    def _duality(self, i: int, t: Sequence[Tensor]) -> float:
        """How far the two are apart, relative to what is allowed."""
        moved = self.problem.by_forward(self.k, t)
        u = self.problem.u(self.k, moved)
        forward = torch.cat([(a.double() * b.double()).flatten() for a, b in zip(u, moved, strict=True)])
        reverse = (self.reverse[i].double() * t[i].double()).flatten()
        size = float(forward.abs().sum() + reverse.abs().sum())
        apart = abs(float(forward.sum() - reverse.sum()))
        allowed = max(10 * self.precision.floor, self.precision.exact * 1e-2) * size + 1e-300
        if not apart <= allowed and size < torch.inf:
            noise = (20 * self.rounding()[i].flatten()).clamp(max=self.most_rounding)
            allowed += float((noise * t[i].double().flatten().abs()).sum()) + self.nothing
        return apart / allowed if apart == apart else torch.inf

    def differences(self, t: Sequence[Tensor]) -> Differences:
        return along(lambda leaves: self.problem.values(self.k, leaves), self.problem.leaves, t)

    def _differences(self) -> Disagreement | None:
        """Forward mode against finite differences, result by result."""
        count = len(self.reverse)
        one_by_one = self.torch is None or count <= FEW
        directions = [self.only(i) for i in range(count)] if one_by_one else [self.problem.t]
        looked_at = 0
        for n, t in enumerate(directions):
            found, moved = self.differences(t), self.problem.by_forward(self.k, t)
            ratio, unclear = self._too_far(found, moved)
            flat = torch.cat([y.double().flatten() for y in moved])
            for j in ((ratio > 1) | unclear).nonzero().flatten().tolist():
                looked_at += 1
                alike = ratio[j] <= 1 or singularity(found.sides, j, float(flat[j]))
                if looked_at > MOST_REMARKS and alike:
                    continue  # one more like those that were looked at
                i, element = self._element_behind(n if one_by_one else None, j)
                words = self._singularity(i, element, j)
                if words is None and ratio[j] > 1:
                    return Disagreement(i, element, ("forward", "numerical"))
                self.remark(i, element, words or f"finite differences do not converge (result {j})")
        return None

    def _singularity(self, i: int, element: int | None, j: int) -> str | None:
        """Why result j has no derivative with respect to that element, if it has none."""
        t = self.only(i, self._mask(i, [element] if element is not None else slice(None)))
        moved = torch.cat([y.double().flatten() for y in self.problem.by_forward(self.k, t)])
        return singularity(self.differences(t).sides, j, float(moved[j]), self._step(i, element))

    def _too_far(self, found: Differences, moved: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each result: how far forward mode is from the differences, relative to what is allowed; and
        whether they have not converged."""
        sizes = [y.numel() for y in moved]
        flat = torch.cat([y.double().flatten() for y in moved])
        scales = torch.cat([_largest(part).expand(len(part)) for part in torch.split(flat, sizes)])
        size = torch.maximum(flat.abs(), found.slope.abs()).nan_to_num(nan=0.0)
        relative = self.precision.differences
        nothing = 500 * self.nothing
        allowed = relative * size + 1e-3 * relative * scales + 20 * found.error + nothing
        # Where differences do not converge they say nothing, but perhaps that there is no derivative.
        unclear = ~(found.error <= 1e-3 * (scales + size) + nothing * (1 + found.value.abs()))
        ratio = ((flat - found.slope).abs() / allowed).nan_to_num(nan=torch.inf)
        return torch.where(found.error < torch.inf, ratio, 0.0), unclear

    # -- which element it is -----------------------------------------------------------------------------

    def _element_behind(self, i: int | None, j: int) -> tuple[int, int | None]:
        """The leaf, and the element of it, whose motion makes result j disagree."""

        def apart(leaf: int, mask: Tensor | None = None) -> float:
            t = self.only(leaf, mask)
            ratio, unclear = self._too_far(self.differences(t), self.problem.by_forward(self.k, t))
            # Differences break where the element moves; forward mode can give nan wherever it does.
            return 1e9 if unclear[j] else min(float(ratio[j]), 1e6)

        if i is None:
            i = max(range(len(self.reverse)), key=apart)
        return i, self._locate(i, lambda mask: apart(i, mask))

    def _locate(self, i: int, badness: Callable[[Tensor], float]) -> int | None:
        """Halve the elements that move, and follow the worse half, until a single one is left."""
        suspects = torch.arange(self.reverse[i].numel())
        while len(suspects) > 1:
            halves = suspects.tensor_split(2)
            scores = []
            for half in halves:
                scores.append(badness(self._mask(i, half)))
            worse = max(scores)
            if not worse > 1:
                return None
            suspects = halves[scores.index(worse)]
        return int(suspects[0])

    def _mask(self, i: int, elements: Any) -> Tensor:
        mask = torch.zeros(self.reverse[i].numel(), device=self.reverse[i].device)
        mask[elements] = 1
        return mask

    # -- the report --------------------------------------------------------------------------------------

    def at(self, i: int, element: int | None) -> Report:
        """What each way gives there for the derivative of ⟨u, f_k⟩."""
        t = self.only(i, self._mask(i, [element] if element is not None else slice(None)))
        step = self._step(i, element)

        def along_t(g: Tensor) -> float:
            return float((g.double() * t[i].double())[t[i] != 0].sum()) / step

        moved = self.problem.by_forward(self.k, t)
        u = self.problem.u(self.k, moved)
        forward = float(dot([a.double() for a in u], [b.double() for b in moved])) / step
        values = {"reverse": along_t(self.reverse[i]), "forward": forward}
        if self.torch is not None:
            values["torch"] = along_t(self.torch[i])
        given = self.reverse[i].double()
        scale = float(_largest(given, given.new_tensor(values["forward"])))
        noise = 10 * self.precision.floor * scale + self.nothing
        margins = {name: noise + self.precision.exact * abs(value) for name, value in values.items()}
        special = None
        if self.numerical:
            result = along(
                lambda leaves: [dot(u, self.problem.values(self.k, leaves)).reshape(1)],
                self.problem.leaves, t,
            )  # fmt: skip
            values["numerical"] = float(result.slope[0]) / step
            error = 20 * float(result.error[0]) / abs(step)
            margins["numerical"] = error + self.precision.exact * abs(values["numerical"])
            special = singularity(result.sides, 0, values["reverse"] * step, step)
        if self.mixed is not None:
            name = "reverse over forward"
            values[name] = along_t(self.mixed[i])
            margins[name] = noise + self.precision.exact * abs(values[name])
        return Report(values, margins, special)

    def _step(self, i: int, element: int | None) -> float:
        return 1.0 if element is None else float(self.problem.t[i].flatten()[element])


def _largest(*tensors: Tensor) -> Tensor:
    finite = [torch.where(t.isfinite(), t.abs(), 0.0).max() for t in tensors if t.numel()]
    return torch.stack(finite).max() if finite else torch.tensor(0.0, dtype=torch.float64)


def index(x: Tensor, element: int) -> tuple[int, ...]:
    return tuple(int(n) for n in torch.unravel_index(torch.tensor(element), x.shape)) if x.shape else ()
