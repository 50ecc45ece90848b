"""What a recipe leaves behind: pictures, curves, a table, `result.json`, and one honest sentence."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from recipes.common.command_line import check_seed, need, parse, plain_endings, progress_bar
from recipes.common.errors import AlreadyFinished, StoppedError
from recipes.common.folder import Folder, plain_settings, read_json, write_json
from recipes.common.loop import one_thread
from recipes.common.parallel import Job, Outcome, done_jobs
from recipes.common.pictures import Figure
from recipes.common.table import finite
from recipes.common.tensorboard import (
    EVENT_SUFFIX,
    add_scalar,
    as_code,
    event_files,
    rendered,
    summary_writer,
    tensorboard_command,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SizeName = Literal["smoke", "gallery", "full"]
Key = TypeVar("Key")
Size = TypeVar("Size")

# What does not matter to an outcome that is there.
MAY_CHANGE = {"logdir"}
TRAININGS = f"trainings{EVENT_SUFFIX}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """Options of the recipes that try one claim of the lecture."""

    size: SizeName = "gallery"
    """smoke: seconds, to see that it runs; gallery: what docs/recipes.md shows; full: larger, up to hours."""
    fresh: bool = False
    """Replace what lies in --logdir, finished or not."""
    logdir: Path = Path("runs/claim")
    """Folder for result.json, pictures and TensorBoard's file."""


@dataclasses.dataclass(frozen=True)
class SeededClaim(Claim):
    """The same for those in which chance has a part."""

    seed: int = 0
    """The first of the seeds that fix all that chance decides."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Did this run bear out what the lecture says?"""

    claim: str
    """The lecture's sentence."""
    borne_out: bool | None
    """None: the run is too small to say."""
    evidence: str
    """What was measured, with figures; a clause that follows a colon, without the full stop."""

    def __str__(self) -> str:
        if self.borne_out is None:
            return f'A run of this size shows that the recipe runs, and says nothing about "{self.claim}".'
        held = "borne out" if self.borne_out else "not borne out"
        return f'"{self.claim}" was {held} by this run: {self.evidence}.'


class Report(Folder):
    """The folder of a recipe's outcome.

    - `config.json`: the settings, written first
    - `NAME.png`: the pictures, which TensorBoard shows as well; of some recipes also an SVG or a GIF
    - `events.out...`: TensorBoard's file with pictures, settings and the verdict
    - `curves/NAME/events.out...`: the curves of each contender, which TensorBoard takes for a run
    - `trainings.torchopt_course/`: outcomes of single trainings, to go on from; deleted at the end
    - `result.json`: the outcome, written last; it is there only if the recipe came to its end
    """

    def __init__(self, path: Path, recipe: str, settings: object) -> None:
        """`settings` is the dataclass that the command line was read into."""
        super().__init__(path, recipe)
        self.settings = plain_settings(settings)
        self.fresh = self.settings.pop("fresh", False)
        self.size: str = getattr(settings, "size", "gallery")
        self.pictures: list[str] = []
        self.started = time.perf_counter()
        self.kept = 0
        self.outcome = ""
        self._writers: dict[str, SummaryWriter] = {}

    def open(self) -> None:
        """Begin, or go on with trainings that are kept.

        Raises `AlreadyFinished` if the folder has this outcome already, and `FolderError` if it has another
        one; `--fresh` replaces either.
        """
        need("matplotlib", "tensorboard")
        earlier = self.claim()
        if earlier and not self.fresh:
            self.refuse_other(earlier, self.settings, MAY_CHANGE)
            outcome = read_json(self.path / "result.json")
            if outcome and {"table", "verdict"} <= outcome.keys():
                again = f"{self.path} had this outcome already, finished; --fresh computes it anew."
                raise AlreadyFinished(f"{told(self.path, outcome)}\n{again}")
        clear(self.path, trainings=self.fresh)
        self.write_settings(self.settings)
        self.tensorboard = self._writer(self.path)
        self.tensorboard.add_text("config", as_code(json.dumps(self.settings, indent=2)))

    def _writer(self, folder: Path) -> SummaryWriter:
        writer = summary_writer(folder)
        self.on_close(writer.close)  # a writer that is never closed can leave nothing on disk
        return writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        super().__exit__(kind, error, traceback)
        if kind is KeyboardInterrupt:
            kept = f"goes on: {self.kept} trainings are kept" if self.kept else "starts from the beginning"
            raise StoppedError(f"interrupted; the same command (without --fresh) {kept}") from None

    def train_all(
        self, function: Callable[..., Outcome], jobs_of: Mapping[Key, Sequence[Job]], name: str
    ) -> dict[Key, list[Outcome]]:
        """What `function` makes of every job, which is a tuple of its arguments, under a progress bar.

        What an interrupted recipe has done is not done again.
        """
        jobs = dict.fromkeys(job for some in jobs_of.values() for job in some)
        outcomes = {}
        parallel = self.size != "smoke"  # to start processes takes longer than a few small trainings
        with progress_bar(len(jobs), "training", name) as bar:
            for job, outcome in done_jobs(function, jobs, self.path / TRAININGS, parallel):
                outcomes[job] = outcome
                self.kept += 1
                bar.update()
        return {key: [outcomes[job] for job in some] for key, some in jobs_of.items()}

    def curve(
        self, tag: str, description: str, values: Iterable[float], steps: Iterable[int] | None = None
    ) -> None:
        """A curve in TensorBoard, and what it shows; without `steps` they count from 1.

        What follows the last "/" of the tag is the contender, a run of its own: the curves of all contenders
        share a chart, each in its colour.
        """
        if steps is None:
            values = list(values)
            steps = range(1, len(values) + 1)
        chart, _, contender = tag.replace(", ", "_").replace(" ", "_").rpartition("/")
        if contender not in self._writers:
            self._writers[contender] = self._writer(self.path / "curves" / contender)
        for step, value in zip(steps, values, strict=True):
            add_scalar(self._writers[contender], f"{self.recipe}/{chart}", value, step, description)

    def picture(self, name: str, figure: Figure, dpi: int = 100) -> None:
        """Save a figure as `name.png` and show it in TensorBoard's images."""
        png, pixels = rendered(figure, dpi)
        (self.path / f"{name}.png").write_bytes(png)
        self.tensorboard.add_image(f"{self.recipe}/{name}", pixels, dataformats="HWC")
        self.pictures.append(f"{name}.png")

    def finish(self, table: str, rows: Sequence[Mapping[str, Any]], verdict: Verdict, **more: Any) -> None:
        """Write result.json, the outcome. `rows` are the table's numbers, for programs."""
        if self.size == "smoke":
            verdict = dataclasses.replace(verdict, borne_out=None)
        self.tensorboard.add_text("table", as_code(table))
        self.tensorboard.add_text("verdict", str(verdict))
        for writer in (self.tensorboard, *self._writers.values()):
            writer.flush()
        result = {
            "recipe": self.recipe,
            **dataclasses.asdict(verdict),
            "verdict": str(verdict),
            "table": table.splitlines(),
            "rows": [{name: finite(value) for name, value in row.items()} for row in rows],
            **more,
            "pictures": self.pictures,
            "seconds": round(time.perf_counter() - self.started, 1),
            "torch_version": torch.__version__,
        }
        write_json(self.path / "result.json", result)
        shutil.rmtree(self.path / TRAININGS, ignore_errors=True)
        self.outcome = told(self.path, result)


def told(folder: Path, result: Mapping[str, Any]) -> str:
    """The outcome in words."""
    return "\n".join([
        *(*result["table"], "", result["verdict"], ""),
        f"Pictures and result.json: {folder}",
        f"To look at the run: {tensorboard_command(folder)}",
    ])  # fmt: skip


def clear(folder: Path, trainings: bool) -> None:
    """Remove an earlier outcome, the result first, and nothing that is not a recipe's."""
    for picture in (read_json(folder / "result.json") or {}).get("pictures", []):
        (folder / Path(picture).name).unlink(missing_ok=True)
    runs = [folder, *folder.glob("curves/*")]
    for path in (folder / "result.json", *(events for run in runs for events in event_files(run))):
        path.unlink(missing_ok=True)
    if trainings:
        shutil.rmtree(folder / TRAININGS, ignore_errors=True)


def main(text: str | None, sizes: Mapping[str, Size], run: Callable[..., None]) -> None:
    """What the script of a claim does: read the command line and call `run(report, size)`, or with a seed.

    `text` is the script's docstring: what is claimed, how it is tried, and what counts as borne out.
    """
    recipe = Path(run.__code__.co_filename).stem
    seeded = "seed" in inspect.signature(run).parameters
    options = SeededClaim if seeded else Claim
    config = parse(options, description=text, default=options(logdir=Path("runs", recipe)))
    with plain_endings():
        seed = {"seed": check_seed(config.seed)} if isinstance(config, SeededClaim) else {}
        with one_thread(), Report(config.logdir, recipe, config) as report:
            report.open()
            run(report, sizes[config.size], **seed)
        print(report.outcome)  # the folder is closed: that nobody takes this is not its fault
