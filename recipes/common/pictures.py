"""The look that all pictures share: one colour for each optimizer, a quiet grid, no box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Names only: to import matplotlib takes most of a second, which `--help` need not wait.
Axes: TypeAlias = "matplotlib.axes.Axes"
Figure: TypeAlias = "matplotlib.figure.Figure"

# Okabe and Ito's palette, which colour-blind readers can tell apart; grey instead of its yellow, which a
# white page swallows.
COLORS = {
    "SGD": "#000000",
    "Momentum": "#0072B2",
    "Nesterov": "#56B4E9",
    "Adagrad": "#009E73",
    "RMSprop": "#E69F00",
    "Adam": "#D55E00",
    "AMSGrad": "#CC79A7",
    "AdamW": "#999999",
}


def figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of that many inches, apart from pyplot, so that nothing keeps it in memory."""
    import matplotlib.figure

    return matplotlib.figure.Figure(figsize=(width, height), layout=layout)


def panels(width: float, height: float, rows: int = 1, columns: int = 1, **how: Any) -> tuple[Figure, Any]:
    """A figure of that many inches with its axes: one, or an array of them."""
    picture = figure(width, height)
    return picture, picture.subplots(rows, columns, **how)


def stars(axes: Axes, places: Any, size: float = 15, label: str = "") -> None:
    """A golden star at each place: here it is lowest."""
    look: dict[str, Any] = {
        "color": "gold",
        "markeredgecolor": "black",
        "markersize": size,
        "linestyle": "none",
    }
    axes.plot(*zip(*places, strict=True), "*", zorder=5, label=label, **look)


def plain_log(axis: Any) -> None:
    """Write 1, 2 and 5 in each decade of a logarithmic axis, as plain numbers."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def decorate(axes: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Labels, a light grid behind the data, and only the two spines that are axes."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title)
    axes.grid(visible=True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
