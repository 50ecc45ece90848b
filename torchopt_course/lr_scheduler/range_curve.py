"""The curve of an LR range test: as it is recorded, and to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

Spacing: TypeAlias = Literal["exponential", "linear"]
# The loss and the accuracy of a batch; NaN if there is none.
Result: TypeAlias = tuple[float, float]


class Recording:
    """The losses as they come in, their average, and whether they have exploded."""

    def __init__(self, iterations: int, smoothing: float, diverge_at: float) -> None:
        self.smoothing = smoothing
        self.diverge_at = diverge_at
        # So long what is seen is the noise of the batches, and there is nothing yet to judge it by.
        self.settled_after = max(10, iterations // 10)
        self.clear()

    def clear(self) -> None:
        self.lrs: list[float] = []
        self.results: list[Result] = []
        self.smoothed: list[float] = []
        self._average = 0.0
        self._highest = self._ceiling = -math.inf
        self._lowest = math.inf

    def add(self, lr: float, results: Sequence[Result]) -> None:
        """One iteration: the results of its batches."""
        losses, accuracies = zip(*results, strict=True)
        known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
        loss = sum(losses) / len(losses)
        self.lrs.append(lr)
        self.results.append((loss, sum(known) / len(known) if known else math.nan))
        self._average += self.smoothing * (loss - self._average)
        smoothed = self._average / (1 - (1 - self.smoothing) ** len(self.lrs))
        self.smoothed.append(smoothed)
        self._highest = max(self._highest, smoothed)
        self._lowest = min(self._lowest, smoothed)
        if smoothed == self._lowest or len(self.lrs) <= self.settled_after:
            self._ceiling = self._highest

    @property
    def losses(self) -> list[float]:
        return [loss for loss, _ in self.results]

    @property
    def accuracies(self) -> list[float]:
        accuracies = [accuracy for _, accuracy in self.results]
        return [] if all(map(math.isnan, accuracies)) else accuracies

    @property
    def exploded(self) -> bool:
        """The smoothed loss is far above its lowest, measured by the range that it had come through before.

        Not by the lowest itself, which says nothing: losses may be near zero, or below.
        """
        rounding = 0.01 * abs(self._lowest)  # a loss that has not moved yet has no range
        seen = max(self._ceiling - self._lowest, rounding)
        return self.smoothed[-1] - self._lowest > self.diverge_at * seen


@dataclass(frozen=True)
class RangeTest:
    """The curve of an LR range test, and what it suggests.

    Attributes:
        lrs: the learning rate of each iteration.
        losses: its loss as it was.
        smoothed: its loss, smoothed.
        accuracies: its accuracy; empty if ``step`` returned none.
        spacing: of the learning rates.
        stopped: where the test ended, and why.
        base_lr: the lower bound for :class:`CyclicLR`, ``None`` where the curve does not show it.
        max_lr: the upper bound, likewise.
        how: how they were found, or why not.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    accuracies: list[float]
    spacing: Spacing
    stopped: str
    base_lr: float | None
    max_lr: float | None
    how: str

    def __str__(self) -> str:
        return f"{self.how}. The test ended {self.stopped}."

    def figure(self) -> Figure:
        """The curve with the suggested bounds; save it with ``figure.savefig(path)``. Needs matplotlib."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        if not self.losses:
            axes.set_xticks([])
            axes.set_yticks([])
            words = f"No curve: the test ended\n{self.stopped}"
            axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center")
            return figure
        self._draw_losses(axes)
        if self.base_lr is not None and self.max_lr is not None:
            band = f"base_lr {self.base_lr:.2g} to max_lr {self.max_lr:.2g}"
            axes.axvspan(self.base_lr, self.max_lr, color="tab:orange", alpha=0.2, label=band)
        else:
            axes.plot([], [], " ", label="no suggestion")
        if self.accuracies:
            axes.plot([], [], color="tab:green", linewidth=1, label="accuracy")  # for the legend
            right = axes.twinx()
            right.plot(self.lrs, self.accuracies, color="tab:green", alpha=0.5, linewidth=1)
            right.set_ylabel("accuracy")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        return figure

    def _draw_losses(self, axes: Axes) -> None:
        marker = "." if len(self.losses) < 50 else ""  # so that a curve of one point can be seen
        for values, label, alpha, width in ((self.losses, "loss", 0.3, 1), (self.smoothed, "smoothed", 1, 2)):
            axes.plot(
                self.lrs, values, color="tab:blue", alpha=alpha, linewidth=width, marker=marker, label=label
            )
        axes.set_xscale("log" if self.spacing == "exponential" else "linear")
        # The explosion at the end would flatten everything before it.
        low, high = min(self.losses), max(self.smoothed[: len(self.smoothed) // 2 + 1])
        height = high - low or abs(high) or 1.0
        axes.set_ylim(low - 0.1 * height, high + 0.7 * height)

    def write(self, writer: SummaryWriter, tag: str = "lr_range_test") -> None:
        """Put curve, picture and suggestion into TensorBoard; the steps are the test's iterations."""
        for i, (lr, loss, smoothed) in enumerate(zip(self.lrs, self.losses, self.smoothed, strict=True)):
            writer.add_scalar(f"{tag}/learning_rate", lr, i)
            writer.add_scalar(f"{tag}/loss", loss, i)
            writer.add_scalar(f"{tag}/smoothed_loss", smoothed, i)
        for i, accuracy in enumerate(self.accuracies):
            writer.add_scalar(f"{tag}/accuracy", accuracy, i)
        writer.add_figure(tag, self.figure())
        writer.add_text(tag, str(self))
