"""What a recipe leaves behind: pictures, curves, a table, `result.json`, and one honest sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recipes.common.board import as_code, rendered, summary_writer, tensorboard_command
from recipes.common.run_folder import WRITTEN_BY, claim, clear, locked, plain_settings, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Did this run bear out what the lecture says?"""

    claim: str
    """The lecture's sentence."""
    borne_out: bool
    evidence: str
    """What was measured, with figures; a clause that follows a colon, without the full stop."""

    def __str__(self) -> str:
        held = "borne out" if self.borne_out else "not borne out"
        return f'"{self.claim}" was {held} by this run: {self.evidence}.'


class Report:
    """The folder of a recipe's outcome. In a `with` statement it is closed however the recipe ends.

    - `config.json`: the settings, written first
    - `NAME.png`: the pictures, which TensorBoard shows as well
    - `events.out...`: TensorBoard's file with curves, pictures, settings and the verdict
    - `result.json`: the outcome, written last; it is there only if the recipe came to its end
    """

    def __init__(self, folder: Path, recipe: str, settings: object) -> None:
        """`settings` is the dataclass that the command line was read into."""
        self.folder = folder
        self.recipe = recipe
        self.pictures: list[str] = []
        self.started = time.perf_counter()
        plain = plain_settings(settings)
        claim(folder, recipe)  # before a lock is laid into somebody else's folder
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(folder))
            clear(folder)
            write_json(folder / "config.json", {"written_by": WRITTEN_BY, "recipe": recipe, **plain})
            self.tensorboard = summary_writer(folder)
            stack.callback(self.tensorboard.close)  # a writer that is never closed can leave nothing on disk
            self._open = stack.pop_all()
        self.tensorboard.add_text("config", as_code(json.dumps(plain, indent=2)))

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def curve(self, tag: str, values: Iterable[float], steps: Iterable[int] | None = None) -> None:
        """A curve in TensorBoard; without `steps` they count from 1."""
        if steps is None:
            values = list(values)
            steps = range(1, len(values) + 1)
        for step, value in zip(steps, values, strict=True):
            self.tensorboard.add_scalar(tag, value, step)

    def picture(self, name: str, figure: Figure, dpi: int = 100) -> None:
        """Save a figure as `name.png` and show it in TensorBoard's images."""
        png, pixels = rendered(figure, dpi)
        (self.folder / f"{name}.png").write_bytes(png)
        self.tensorboard.add_image(f"{self.recipe}/{name}", pixels, dataformats="HWC")
        self.pictures.append(f"{name}.png")

    def finish(self, table: str, rows: Sequence[Mapping[str, Any]], verdict: Verdict, **more: Any) -> None:
        """Write result.json and print the outcome. `rows` are the table's numbers, for programs."""
        self.tensorboard.add_text("table", as_code(table))
        self.tensorboard.add_text("verdict", str(verdict))
        self.tensorboard.flush()
        result = {
            "recipe": self.recipe,
            **dataclasses.asdict(verdict),
            "verdict": str(verdict),
            "table": table.splitlines(),
            "rows": [dict(row) for row in rows],
            **more,
            "pictures": self.pictures,
            "seconds": round(time.perf_counter() - self.started, 1),
            "torch_version": torch.__version__,
        }
        write_json(self.folder / "result.json", result)
        print(table)
        print(f"\n{verdict}")
        print(f"\nPictures and result.json: {self.folder}")
        print(f"To look at the run: {tensorboard_command(self.folder)}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first flush left; a cell of the header may have several lines."""
    heights = [cell.count("\n") for cell in header]
    padded = ["\n" * (max(heights) - height) + cell for height, cell in zip(heights, header, strict=True)]
    head = list(zip(*(cell.split("\n") for cell in padded), strict=True))
    widths = [max(map(len, column)) for column in zip(*head, *rows, strict=True)]
    lines = [*head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()
        for first, *others in lines
    )
