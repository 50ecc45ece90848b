"""The pictures of `recipes/derivatives.py`: errors against h, costs against n, the dependency graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recipes.common.pictures import decorate, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recipes.derivatives import Cost, Errors
    from torchopt_course.autograd.graph import Graph

# Okabe and Ito's, as in the other pictures.
WAYS = {
    "reverse mode": ("#0072B2", "o"),
    "forward mode": ("#D55E00", "s"),
    "finite differences": ("#009E73", "^"),
}
DIFFERENCES = {"forward": ("#009E73", "o"), "central": ("#CC79A7", "s")}


def errors_picture(errors: Errors) -> Figure:
    """Both finite differences, and the theory's lines beneath: truncation rises with h, round-off falls."""
    picture = figure(9, 5)
    axes = picture.subplots()
    formulas = {"forward": "h/2 |z″|", "central": "h²/6 |z‴|"}
    measured = {"forward": errors.forward, "central": errors.central}
    for way, (color, marker) in DIFFERENCES.items():
        axes.loglog(
            errors.h,
            errors.truncation[way],
            color=color,
            linestyle="--",
            label=f"truncation, {formulas[way]}",
        )
        axes.loglog(
            errors.h, measured[way], color=color, marker=marker, markersize=4, linewidth=1.2,
            label=f"{way} differences, measured",
        )  # fmt: skip
    axes.loglog(errors.h, errors.round_off, color="0.4", linestyle=":", label="round-off, about ε/2 |z| / h")
    axes.set_ylim(1e-13, 10)
    decorate(axes, "step h", "error of dz/dx, root mean square", "Finite differences of z = x y + sin x")
    axes.legend(fontsize=9, loc="upper center")
    return picture


def cost_picture(measured: Sequence[Cost]) -> Figure:
    """Evaluations of the program that all its derivatives cost; left many inputs, right many results."""
    picture = figure(10, 4.5)
    shapes = {"n inputs, 1 result": "number of inputs n", "1 input, n results": "number of results n"}
    panels = picture.subplots(1, 2, sharey=True)
    for axes, (shape, label) in zip(panels, shapes.items(), strict=True):
        for way, (color, marker) in WAYS.items():
            found = [c for c in measured if (c.shape, c.way) == (shape, way)]
            if found:
                axes.loglog(
                    [c.n for c in found], [c.evaluations for c in found],
                    color=color, marker=marker, label=way,
                    linestyle="--" if way == "finite differences" else "-",
                )  # fmt: skip
        decorate(axes, label, "", shape)
        axes.legend()
    panels[0].set_ylabel("all derivatives, in evaluations of the program")
    return picture


def graph_picture(graph: Graph) -> Figure:
    """Each node below all that it was made from."""
    parents: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in graph.edges:
        parents[edge.target].append(edge.source)
    layer: dict[str, int] = {}
    for node in graph.nodes:  # in topological order
        layer[node.key] = 1 + max((layer[key] for key in parents[node.key]), default=-1)
    place: dict[str, float] = {}
    for depth in range(max(layer.values()) + 1):
        row = [key for key in layer if layer[key] == depth]
        row.sort(key=lambda key: sum(place[p] for p in parents[key]) / max(1, len(parents[key])))
        place.update({key: i - (len(row) - 1) / 2 for i, key in enumerate(row)})

    picture = figure(6, 5)
    axes = picture.subplots()
    axes.set_axis_off()
    axes.set(xlim=(min(place.values()) - 0.6, max(place.values()) + 0.6))
    axes.set(ylim=(-max(layer.values()) - 0.4, 0.4))
    for edge in graph.edges:
        axes.annotate(
            "",
            (place[edge.target], -layer[edge.target] + 0.2),
            (place[edge.source], -layer[edge.source] - 0.2),
            arrowprops={"arrowstyle": "-|>", "color": "0.4", "linewidth": 1.4},
        )  # fmt: skip
    for node in graph.nodes:
        axes.text(
            place[node.key], -layer[node.key], "\n".join(node.lines),
            ha="center", va="center", fontsize=12,
            bbox={
                "boxstyle": "round,pad=0.5" if node.is_leaf else "round4,pad=0.6",
                "facecolor": "#dcebd8" if node.is_leaf else "#dce6f4", "edgecolor": "0.4",
            },
        )  # fmt: skip
    axes.set_title("What z was computed from; grad is dz by each of them")
    return picture
