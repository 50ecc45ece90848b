"""One program differentiated four ways, and what each way costs: `python recipes/derivatives.py`.

The lecture's program, its derivatives by hand, and what it says of the four ways:

    a = x y             dz/dx = y + cos x
    b = sin x           dz/dy = x
    z = a + b

    "Reverse mode gives the whole gradient of a scalar function at a cost that does not depend on the number
    of inputs; forward mode needs one pass for each input; finite differences trade truncation against
    round-off."

Cost is counted, not timed: how many numbers torch's operations compute, compared with one evaluation of the
program.

- Many inputs, one result: x and y are vectors, the result is the sum of all z. n inputs are n / 2 pairs.
- One input, many results: x is one number, y a constant vector of n, and so is z.

The claim is borne out if all of this holds:

1. All four ways agree with the hand: the exact ones within 1e-12, finite differences within 1e-8.
2. Of n inputs the reverse gradient costs less than 5 evaluations for every n (the bound of Baur and Strassen,
   1983), and for the largest n less than 10 % more than for the smallest.
3. The cost of the forward gradient grows like n to the power of 1 ± 0.1. With n results the two modes change
   places.
4. The error of finite differences falls like h (forward) and h² (central) where truncation rules, and grows
   like 1/h where round-off does; each slope within 0.15.
5. Written out as a formula, the derivative of an iterated map more than doubles with every iteration; in
   reverse mode its cost does not.

There is no chance in it: all figures are the same in every run. Also leaves the dependency
graph (graph.svg, graph.dot, graph.txt).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if not __package__:  # run by its path: Python looks for modules in recipes/, the package lies one higher
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts import derivative_pictures as pictures
from recipes.parts.counted_work import Cost, work
from recipes.parts.difference_errors import Errors, Y, errors_against_h
from recipes.parts.expression_swell import Swell, grows_by, swell
from recipes.parts.statistics import loglog_slope
from torchopt_course import autograd
from torchopt_course.autograd import Variable, numerical, symbolic

CLAIM = (
    "reverse mode gives the whole gradient of a scalar function at a cost that does not depend on the number "
    "of inputs; forward mode needs one pass for each input; finite differences trade truncation against "
    "round-off"
)
X = 2.0
CHEAP_GRADIENT = 5.0
WITHIN = 0.15


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    counts: tuple[int, ...]
    """Numbers of inputs, or of results; even."""
    points: int
    """At how many x the error of finite differences is measured."""
    iterations: int
    """Of the logistic map, whose derivative is written out."""


SIZES: dict[str, Size] = {
    "smoke": Size(counts=(8, 32, 128), points=50, iterations=4),
    "gallery": Size(counts=(2, 8, 32, 128, 512), points=200, iterations=6),
    "full": Size(counts=(2, 8, 32, 128, 512, 2048, 8192), points=2000, iterations=8),
}


# -- the program ---------------------------------------------------------------------------------------------


def steps(x: Any, y: Any) -> tuple[Any, Any, Any]:
    """The lecture's program, line by line."""
    a = x * y
    b = torch.sin(x)
    z = a + b
    return a, b, z


def program(x: Any, y: Any) -> Any:
    """Only its result."""
    return steps(x, y)[-1]


def by_hand(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """dz/dx and dz/dy, derived on paper."""
    return y + torch.cos(x), x


def four_ways() -> dict[str, tuple[Tensor, Tensor]]:
    """dz/dx and dz/dy at the lecture's point."""
    x, y = torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)
    both = (0, 1)
    return {
        "by hand": by_hand(x, y),
        "symbolic": symbolic.formula(program).grad(x, y),
        "finite differences": numerical.grad(program, argnums=both)(x, y),
        "forward mode": autograd.jacfwd(program, argnums=both)(x, y),
        "reverse mode": autograd.grad(program, argnums=both)(x, y),
    }


def dependency_graph() -> autograd.graph.Graph:  # type: ignore[name-defined]
    """What z was computed from, each node with its value's share in dz."""
    x, y = Variable(X), Variable(Y)
    a, b, z = steps(x, y)
    return autograd.graph(z, names={"x": x, "y": y, "a": a, "b": b, "z": z}, gradients=True)


# -- cost against the number of inputs and of results --------------------------------------------------------


def costs(n: int) -> list[Cost]:
    """The same program with n inputs and one result, and with one input and n results."""
    numbers = torch.linspace(0.5, 2.5, n, dtype=torch.float64)
    x, y = numbers[: n // 2], numbers[n // 2 :]
    one = numbers[0].clone()

    def total(x: Any, y: Any) -> Any:
        return program(x, y).sum()

    def fan(x: Any) -> Any:
        return program(x, numbers)

    both = (0, 1)
    shapes: dict[Any, tuple[Callable[[], object], dict[Any, Callable[[], object]]]] = {
        "n inputs, 1 result": (
            lambda: total(x, y),
            {
                "reverse mode": lambda: autograd.grad(total, both)(x, y),
                "forward mode": lambda: autograd.jacfwd(total, both)(x, y),
                "finite differences": lambda: numerical.grad(total, both)(x, y),
            },
        ),
        "1 input, n results": (
            lambda: fan(one),
            {
                "reverse mode": lambda: autograd.jacrev(fan)(one),
                "forward mode": lambda: autograd.jacfwd(fan)(one),
            },
        ),
    }
    return [
        Cost(shape, n, way, work(derive) / work(evaluate))
        for shape, (evaluate, ways) in shapes.items()
        for way, derive in ways.items()
    ]


# -- the verdict ---------------------------------------------------------------------------------------------


def judge(
    errors_of_ways: dict[str, float], errors: Errors, measured: Sequence[Cost], swollen: Sequence[Swell]
) -> Verdict:
    """The criterion of the docstring on top, point by point."""

    def line(shape: str, way: str) -> tuple[list[int], list[float]]:
        chosen = [c for c in measured if (c.shape, c.way) == (shape, way)]
        return [c.n for c in chosen], [c.evaluations for c in chosen]

    exact = max(e for way, e in errors_of_ways.items() if way != "finite differences")
    ns, reverse = line("n inputs, 1 result", "reverse mode")
    forward = line("n inputs, 1 result", "forward mode")[1]
    _, reverse_of_results = line("1 input, n results", "reverse mode")
    forward_of_results = line("1 input, n results", "forward mode")[1]
    grows, grows_of_results = loglog_slope(ns, forward), loglog_slope(ns, reverse_of_results)
    ideal = {
        "forward truncation": 1,
        "central truncation": 2,
        "forward round-off": -1,
        "central round-off": -1,
    }
    agree = exact < 1e-12 and errors_of_ways["finite differences"] < 1e-8
    constant = all(
        max(flat) < CHEAP_GRADIENT and flat[-1] < 1.1 * flat[0] for flat in (reverse, forward_of_results)
    )
    linear = all(abs(power - 1) < 0.1 for power in (grows, grows_of_results))
    traded = all(abs(errors.slopes[name] - slope) < WITHIN for name, slope in ideal.items())
    by_formula = grows_by([one.formula for one in swollen])
    swells = by_formula > 2 > grows_by([one.reverse for one in swollen])
    best = {
        way: min(zip(values, errors.h, strict=True))
        for way, values in (("forward", errors.forward), ("central", errors.central))
    }
    return Verdict(
        CLAIM,
        agree and constant and linear and traded and swells,
        f"all four ways agree with the hand (symbolic, forward and reverse mode within {exact:.1g}, finite "
        f"differences within {errors_of_ways['finite differences']:.0e}); the gradient of {ns[0]} inputs "
        f"costs {reverse[0]:.2f} evaluations in reverse mode and {forward[0]:,.1f} in forward mode, of "
        f"{ns[-1]:,} inputs {reverse[-1]:.2f} and {forward[-1]:,.0f} (growing like n^{grows:.2f}); of "
        f"{ns[-1]:,} results and one input forward mode costs {forward_of_results[-1]:.2f} and reverse mode "
        f"{reverse_of_results[-1]:,.0f}; the error of finite differences goes like "
        f"h^{errors.slopes['forward truncation']:.2f} (forward) and "
        f"h^{errors.slopes['central truncation']:.2f} (central) down to {best['forward'][0]:.0e} at "
        f"h = {best['forward'][1]:.0e} and {best['central'][0]:.0e} at h = {best['central'][1]:.0e}, and "
        f"below like h^{errors.slopes['forward round-off']:.2f} and "
        f"h^{errors.slopes['central round-off']:.2f}; the derivative of {swollen[-1].iterations} iterations "
        f"of the logistic map is a formula of {swollen[-1].formula:,} operations, {by_formula:.1f} times as "
        f"many as for one less, and costs {swollen[-1].reverse} in reverse mode",
    )


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> float:
    """The larger one of the two errors."""
    return max(float((f - e).abs()) for f, e in zip(found, exact, strict=True))


def tables(
    ways: dict[str, tuple[Tensor, Tensor]],
    off: dict[str, float],
    measured: Sequence[Cost],
    swollen: Sequence[Swell],
) -> str:
    """The four ways at one point, their costs, how a formula swells, and the lecture's two tables."""
    points = [{"way": way, "dx": dx, "dy": dy, "error": off[way] or None} for way, (dx, dy) in ways.items()]
    at_point = {"": "{way}", "dz/dx": "{dx:.15f}", "dz/dy": "{dy:.15f}", "error": "{error:.0e}"}
    evaluations: dict[int, dict[str, float]] = {}
    for c in measured:
        evaluations.setdefault(c.n, {"n": c.n})[f"{c.shape}, {c.way}"] = c.evaluations
    kinds = dict.fromkeys(f"{c.shape}, {c.way}" for c in measured)
    costs_of = {kind.replace(", ", "\n"): f"{{{kind}:,.2f}}" for kind in kinds}
    swell_of = {
        "iterations of\n4 x (1 - x)": "{iterations}",
        "operations in the\nderivative's formula": "{formula:,}",
        "in reverse\nmode": "{reverse}",
    }
    return "\n\n".join([
        table_of(points, at_point, missing="0"),
        "All derivatives, in evaluations of the program:",
        table_of(evaluations.values(), {"n": "{n}", **costs_of}),
        table_of(map(vars, swollen), swell_of),
        str(autograd.trace(program, x=X, y=Y)),
    ])  # fmt: skip


def run(report: Report, size: Size) -> None:
    """Four ways, errors, costs, graph; then the verdict."""
    ways = four_ways()
    errors = errors_against_h(program, size.points)
    measured = [cost for n in size.counts for cost in costs(n)]
    graph = dependency_graph()

    graph.svg(report.folder / "graph.svg", graphviz=False)
    (report.folder / "graph.dot").write_text(graph.dot() + "\n", encoding="utf-8")
    (report.folder / "graph.txt").write_text(graph.text() + "\n", encoding="utf-8")
    graph.tensorboard(report.tensorboard)
    for shape, way in dict.fromkeys((c.shape, c.way) for c in measured):
        chosen = [c for c in measured if (c.shape, c.way) == (shape, way)]
        tag = f"evaluations/{shape}/{way}".replace(", ", "_").replace(" ", "_")
        words = "Cost of all derivatives, in evaluations of the program; the step is n."
        report.curve(tag, words, [c.evaluations for c in chosen], [c.n for c in chosen])
    report.picture("graph", pictures.graph_picture(graph))
    report.picture("error_against_h", pictures.errors_picture(errors))
    report.picture("cost", pictures.cost_picture(measured))
    swollen = swell(size.iterations)
    report.picture("swell", pictures.swell_picture(swollen))
    off = {way: distance(found, ways["by hand"]) for way, found in ways.items()}
    report.finish(
        tables(ways, off, measured, swollen),
        [asdict(cost) for cost in measured],
        judge({way: error for way, error in off.items() if way != "by hand"}, errors, measured, swollen),
        formula=str(symbolic.formula(program)).splitlines(),
        ways={way: [float(d) for d in found] for way, found in ways.items()},
        slopes=errors.slopes,
        swell=[asdict(one) for one in swollen],
        graph=["graph.svg", "graph.dot", "graph.txt"],
    )


if __name__ == "__main__":
    main(__doc__, SIZES, run)
