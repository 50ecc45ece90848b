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

1. All four ways agree with the derivatives by hand: the exact ones within 1e-12, finite differences within
   1e-8.
2. Of n inputs the reverse gradient costs less than 5 evaluations for every n (the bound of Baur and Strassen,
   1983), and for the largest n less than 10 % more than for the smallest.
3. The cost of the forward gradient grows like n to the power of 1 ± 0.1. With n results the two modes change
   places.
4. The error of finite differences falls like h (forward) and h² (central) where truncation rules, and grows
   like 1/h where round-off does; each slope within 0.15.

There is no chance in it: all figures are the same in every run. The dependency graph is left as graph.svg,
graph.dot and graph.txt.
"""

from __future__ import annotations

import runpy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor

from recipes.common.pictures import Figure, decorate, panels
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table
from recipes.parts.counted_work import MANY_INPUTS, MANY_RESULTS, Costs, work
from recipes.parts.difference_errors import Errors, Y, draw_errors, errors_against_h
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
# Of the error against h, and how near a measured one must be.
POWERS = {"forward truncation": 1, "central truncation": 2, "forward round-off": -1, "central round-off": -1}
WITHIN = 0.15


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    counts: tuple[int, ...]
    """Numbers of inputs, or of results; even."""
    points: int
    """At how many x the error of finite differences is measured."""


SIZES = {
    "smoke": Size(counts=(8, 32, 128), points=50),
    "gallery": Size(counts=(2, 8, 32, 128, 512), points=200),
    "full": Size(counts=(2, 8, 32, 128, 512, 2048, 8192), points=2000),
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


def four_ways() -> dict[str, tuple[Tensor, Tensor]]:
    """dz/dx and dz/dy at the lecture's point."""
    x, y = torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)
    both = (0, 1)
    return {
        "by hand": (y + torch.cos(x), x),
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


def total(x: Any, y: Any) -> Any:
    """One result of many inputs."""
    return program(x, y).sum()


def costs(counts: Sequence[int]) -> Costs:
    """The same program with n inputs and one result, and with one input and n results."""
    found: Costs = defaultdict(dict)
    both = (0, 1)
    for n in counts:
        numbers = torch.linspace(0.5, 2.5, n, dtype=torch.float64)
        x, y, one = numbers[: n // 2], numbers[n // 2 :], numbers[0].clone()
        for way, gradient in {
            "reverse mode": autograd.grad(total, both),
            "forward mode": autograd.jacfwd(total, both),
            "finite differences": numerical.grad(total, both),
        }.items():
            found[MANY_INPUTS, way][n] = work(gradient, x, y) / work(total, x, y)
        fan = partial(program, y=numbers)
        for way, slopes in ("reverse mode", autograd.jacrev(fan)), ("forward mode", autograd.jacfwd(fan)):
            found[MANY_RESULTS, way][n] = work(slopes, one) / work(fan, one)
    return found


# -- the verdict ---------------------------------------------------------------------------------------------


def judge(off: dict[str, float], errors: Errors, measured: Costs) -> Verdict:
    """The criterion of the docstring on top, point by point; `off` are the errors of the four ways."""
    exact = max(error for way, error in off.items() if way != "finite differences")
    agree = exact < 1e-12 and off["finite differences"] < 1e-8
    counts = list(measured[MANY_INPUTS, "reverse mode"])
    cost = {key: list(by_n.values()) for key, by_n in measured.items()}
    cheap = cost[MANY_INPUTS, "reverse mode"], cost[MANY_RESULTS, "forward mode"]
    dear = cost[MANY_INPUTS, "forward mode"], cost[MANY_RESULTS, "reverse mode"]
    flat = all(max(c) < CHEAP_GRADIENT and c[-1] < 1.1 * c[0] for c in cheap)
    powers = [loglog_slope(counts, c) for c in dear]
    linear = all(abs(power - 1) < 0.1 for power in powers)
    traded = all(abs(errors.slopes[name] - power) < WITHIN for name, power in POWERS.items())
    went = ", ".join(f"h^{errors.slopes[name]:.2f} ({name})" for name in POWERS)
    same = (
        "equal the derivatives by hand" if exact == 0 else f"are the derivatives by hand within {exact:.1g}"
    )
    return Verdict(
        CLAIM,
        agree and flat and linear and traded,
        f"symbolic, forward and reverse mode {same}, finite differences agree "
        f"within {off['finite differences']:.0e}; of {counts[-1]:,} inputs and one result reverse mode costs "
        f"{cheap[0][-1]:.2f} evaluations and forward mode {dear[0][-1]:,.0f} (like n^{powers[0]:.2f}), "
        f"of one input and {counts[-1]:,} results {dear[1][-1]:,.0f} and {cheap[1][-1]:.2f}; the error of "
        f"finite differences goes like {went}",
    )


def tables(ways: dict[str, tuple[Tensor, Tensor]], off: dict[str, float], measured: Costs) -> str:
    """The four ways at one point, their costs, and the lecture's two tables."""
    points = [(way, f"{dx:.15f}", f"{dy:.15f}", f"{off[way]:.0g}") for way, (dx, dy) in ways.items()]
    heads = [f"{shape}\n{way}".replace(", ", "\n") for shape, way in measured]
    by_n = [
        (str(n), *(f"{cost[n]:,.2f}" for cost in measured.values()))
        for n in measured[MANY_INPUTS, "reverse mode"]
    ]
    return "\n\n".join([
        table(("", "dz/dx", "dz/dy", "error"), points),
        "All derivatives, in evaluations of the program:",
        table(("n", *heads), by_n),
        str(autograd.trace(program, x=X, y=Y)),
    ])  # fmt: skip


def draw_costs(measured: Costs) -> Figure:
    """Evaluations of the program that all its derivatives cost; left many inputs, right many results."""
    picture, (inputs, results) = panels(10, 4.5, columns=2, sharey=True)
    shapes = {MANY_INPUTS: inputs, MANY_RESULTS: results}
    looks = {"reverse mode": "#0072B2", "forward mode": "#D55E00", "finite differences": "#009E73"}
    for (shape, way), cost in measured.items():
        shapes[shape].loglog(cost.keys(), cost.values(), "o-", color=looks[way], label=way)
    for shape, axes in shapes.items():
        decorate(axes, "n", "all derivatives, in evaluations of the program", shape)
        axes.legend()
        axes.label_outer()
    return picture


def run(report: Report, size: Size) -> None:
    """Four ways, errors, costs, graph; then the verdict."""
    ways = four_ways()
    off = {
        way: max(float((f - e).abs()) for f, e in zip(found, ways["by hand"], strict=True))
        for way, found in ways.items()
    }
    errors, measured = errors_against_h(program, size.points), costs(size.counts)
    graph = dependency_graph()
    graph.svg(report.path / "graph.svg", graphviz=False)
    report.pictures.append("graph.svg")
    (report.path / "graph.dot").write_text(graph.dot() + "\n", encoding="utf-8")
    (report.path / "graph.txt").write_text(graph.text() + "\n", encoding="utf-8")
    graph.tensorboard(report.tensorboard)
    for (shape, way), cost in measured.items():
        words = "Cost of all derivatives, in evaluations of the program; the step is n."
        report.curve(f"evaluations/{shape}/{way}", words, cost.values(), cost)
    report.picture("error_against_h", draw_errors(errors))
    report.picture("cost", draw_costs(measured))
    report.finish(
        tables(ways, off, measured),
        [
            {"shape": shape, "n": n, "way": way, "evaluations": evaluations}
            for (shape, way), cost in measured.items()
            for n, evaluations in cost.items()
        ],
        judge(off, errors, measured),
        formula=str(symbolic.formula(program)).splitlines(),
        ways={way: [float(d) for d in found] for way, found in ways.items()},
        slopes=errors.slopes,
    )


if __name__ == "__main__":
    main(__doc__, SIZES, run)
