"""The pictures of `recipes/derivatives.py`: errors against h, costs against n, the dependency graph."""

from __future__ import annotations

from collections.abc import Sequence

from recipes.common.pictures import Figure, decorate, figure
from recipes.parts.counted_work import Cost
from recipes.parts.difference_errors import Errors
from recipes.parts.expression_swell import Swell
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


def swell_picture(swollen: Sequence[Swell]) -> Figure:
    """Operations of a derivative by the number of iterations: as a formula, and in reverse mode."""
    picture = figure(8, 4.6)
    axes = picture.subplots()
    x = [one.iterations for one in swollen]
    axes.semilogy(
        x, [one.formula for one in swollen], color="#D55E00", marker="s", label="derivative as a formula"
    )
    axes.semilogy(x, [one.reverse for one in swollen], color="#0072B2", marker="o", label="reverse mode")
    axes.locator_params(axis="x", integer=True)
    title = "Expression swell: the derivative of the logistic map 4 x (1 - x), iterated"
    decorate(axes, "iterations", "operations", title)
    axes.legend()
    return picture


def graph_picture(graph: Graph) -> Figure:
    """Each node below all that it was made from, as in graph.svg."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    layout = graph.layout()
    picture = figure(6, 6 * layout.height / layout.width)
    axes = picture.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, layout.width), ylim=(layout.height, 0), aspect="equal")
    for edge, line in zip(graph.edges, layout.lines, strict=True):
        points, codes = line.points[:1], [Path.MOVETO]
        for step in line.steps():
            points += step
            codes += [Path.LINETO] if len(step) == 1 else [Path.CURVE4] * 3
        axes.add_patch(
            FancyArrowPatch(
                path=Path(points, codes), arrowstyle="-|>", mutation_scale=12, color="0.4", linewidth=1.2
            )
        )
        x, y = line.points[-1]
        side = -1 if line.label_on_left else 1
        axes.text(
            x + 5 * side, y - 7, edge.words, ha="right" if side < 0 else "left", fontsize=11, color="0.4"
        )
    for node in graph.nodes:
        box = layout.boxes[node.key]
        axes.add_patch(
            FancyBboxPatch(
                (box.x - box.width / 2, box.y - box.height / 2), box.width, box.height,
                boxstyle=f"round,pad=0,rounding_size={2 if node.is_leaf else 18}",
                facecolor="#dcebd8" if node.is_leaf else "#dce6f4", edgecolor="0.4",
            )
        )  # fmt: skip
        axes.text(box.x, box.y, "\n".join(node.lines), ha="center", va="center", fontsize=12)
    axes.set_title(
        "What z was computed from; grad is dz by each of them,\non the edges stand the chain rule's factors"
    )
    return picture
