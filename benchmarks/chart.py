"""The ratios of a report as a picture, the training loop first: a group of bars for each case."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import Result, threads_text
from .report import Report
from .timing import Spread
from .workloads import MODELS, OURS, TORCH_CONTENDERS

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

    ratios = [_against_torch(result) for groups in panels.values() for result in groups.values()]
    medians = [ratio.median for each in ratios for ratio in each.values()]
    # Room on the right for the longest bar's number; on the left at least as far as 0.7.
    axes[0].set_xlim(min(0.7, *medians) * 0.9, max(2.0, *medians) * 2.4)
    present = {name for each in ratios for name in each}
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
    threads = threads_text(max(result.case.threads for result in report.results.values()))
    where = f"{machine.title}, {threads}, torch {machine.versions['torch']}"
    return f"How many times longer torch.optim takes for a step() than torchopt_course\n{where}"


def _panels(report: Report) -> dict[str, dict[str, Result]]:
    """Title -> label of a group -> result, of those with the most threads.

    The small models, each with one optimizer in the loop, share a panel.
    """
    panels: dict[str, dict[str, Result]] = {}
    for result in _with_most_threads(report.of("in the loop")):
        model = MODELS[result.case.model]
        title = f"In the training loop, {model.title if model.large else 'small models'}"
        group = (
            result.case.optimizer if model.large else f"{result.case.optimizer}\n{_shortened(model.title)}"
        )
        panels.setdefault(title, {})[group] = result
    for result in _with_most_threads(report.of("alone")):
        shape = f"{result.tensors:,} tensors, {_short(result.elements)} elements"
        title = f"Alone, {MODELS[result.case.model].title}\n{shape}"
        panels.setdefault(title, {})[result.case.optimizer] = result
    return panels


def _shortened(title: str) -> str:
    """``wide MLP`` of ``wide MLP 784-1024-1024-10``."""
    return " ".join(word for word in title.split() if not word[0].isdigit())


def _with_most_threads(results: list[Result]) -> list[Result]:
    most = max((result.case.threads for result in results), default=0)
    return [result for result in results if result.case.threads == most]


def _against_torch(result: Result) -> dict[str, Spread]:
    """Torch's contender -> its time divided by that of our default."""
    ratios = result.step.ratios
    return {name: ratios[key] for name in TORCH_CONTENDERS if (key := f"{name} / {OURS}") in ratios}


def _short(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _draw_panel(axis: Axes, title: str, groups: dict[str, Result]) -> None:
    for row, result in enumerate(groups.values()):
        bars = _against_torch(result)
        for place, (name, ratio) in enumerate(bars.items()):
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
