"""The ratios of a report as a picture: one panel a model, one group of bars an optimizer."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import Case
from .report import Report
from .workloads import MODELS, TORCH_CONTENDERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"default": "#c44e52", "foreach": "#dd9f40", "fused": "#4c72b0"}
LABELS = {"default": "torch default (for-loop)", "foreach": "torch foreach=True", "fused": "torch fused=True"}
INK, FAINT = "#222222", "#8a8a8a"
COLUMNS = 3
BAR = 0.26  # of the room of a group


def draw(report: Report, path: Path) -> None:
    """Write the picture: how many times longer torch takes, on a logarithmic axis with a line at 1."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch

    panels = _panels(report)
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    tallest = max(len(groups) for groups in panels.values())
    figure = Figure(
        figsize=(1.2 + 4.4 * columns, 1.6 + rows * (0.7 + 0.62 * tallest)),
        layout=ConstrainedLayoutEngine(hspace=0.05, wspace=0.03),
    )
    axes: list[Axes] = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel().tolist()
    for axis, (title, groups) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, title, groups)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)

    ratios = [
        r.median for groups in panels.values() for case in groups.values() for r in case.ratios.values()
    ]
    # Room on the right for the longest bar's number; on the left at least as far as 0.7.
    axes[0].set_xlim(min(0.7, *ratios) * 0.9, max(2.0, *ratios) * 2.4)
    present = {name for groups in panels.values() for case in groups.values() for name in case.ratios}
    figure.legend(
        handles=[
            *(Patch(color=COLOURS[name], label=LABELS[name]) for name in TORCH_CONTENDERS if name in present),
            Patch(color=FAINT, alpha=0.12, label="here torch is faster"),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    figure.suptitle(_title(report), fontsize=13, color=INK, linespacing=1.5)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _title(report: Report) -> str:
    machine = report.machine
    threads = max(case.threads for case in (*report.steps, *report.iterations))
    where = f"{machine.title}, {threads} thread{'s' * (threads != 1)}, torch {machine.versions['torch']}"
    return f"How many times longer torch.optim takes than torchopt_course\n{where}"


def _panels(report: Report) -> dict[str, dict[str, Case]]:
    """Title -> label of a group -> case, of the cases with the most threads."""
    panels: dict[str, dict[str, Case]] = {}
    for case in _with_most_threads(report.steps):
        shape = f"{case.tensors:,} tensors, {_short(case.elements)} elements"
        title = f"{MODELS[case.model].title} ({shape})"
        panels.setdefault(title, {})[case.optimizer] = case
    for case in _with_most_threads(report.iterations):
        group = f"{case.optimizer},\n{MODELS[case.model].title.split()[0]}"
        panels.setdefault("Whole training iteration", {})[group] = case
    return panels


def _with_most_threads(cases: list[Case]) -> list[Case]:
    most = max((case.threads for case in cases), default=0)
    return [case for case in cases if case.threads == most]


def _short(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _draw_panel(axis: Axes, title: str, groups: dict[str, Case]) -> None:
    for row, case in enumerate(groups.values()):
        bars = [name for name in TORCH_CONTENDERS if name in case.ratios]
        for place, name in enumerate(bars):
            ratio = case.ratios[name]
            y = row + (place - (len(bars) - 1) / 2) * BAR
            axis.barh(y, ratio.median - 1, BAR * 0.92, left=1, color=COLOURS[name])
            axis.plot([ratio.lower, ratio.upper], [y, y], color=INK, linewidth=0.8)
            axis.annotate(
                f"{ratio.median:.2f}" if ratio.median < 10 else f"{ratio.median:.0f}",
                (max(ratio.upper, 1), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    axis.set_xscale("log")
    axis.axvline(1, color=INK, linewidth=1)
    axis.axvspan(1e-9, 1, color=FAINT, alpha=0.12, linewidth=0, zorder=0)  # the side on which torch is faster
    axis.set_yticks(range(len(groups)), list(groups))
    axis.set_ylim(len(groups) - 0.45, -0.55)
    axis.set_title(title, fontsize=10.5, fontweight="bold", color=INK, loc="left")
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.tick_params(labelbottom=True, colors=INK, length=0)
    axis.minorticks_off()
    axis.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)
