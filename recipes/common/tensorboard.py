"""TensorBoard's writer, curves with a description, and the line that opens TensorBoard."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
import sysconfig
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.common.pictures import Figure

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# How the recipes know their own event files: no other is ever cut or deleted.
EVENT_SUFFIX = ".torchopt_course"


def event_files(folder: Path) -> list[Path]:
    """TensorBoard's files that a recipe has written into the folder."""
    return list(folder.glob(f"events.out.tfevents.*{EVENT_SUFFIX}"))


def summary_writer(folder: Path, from_step: int = 0) -> SummaryWriter:
    """TensorBoard's writer. It is imported here because that takes a second which `--help` need not wait."""
    # Where TensorFlow happens to be installed, TensorBoard imports all of it to write one file.
    # This module, when it exists, is its own sign for "use the small stand-in".
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    from torch.utils.tensorboard import SummaryWriter

    # The queue to the writing thread holds an epoch's scalars: training need not wait for the disk.
    return SummaryWriter(
        str(folder),
        # TensorBoard without its fast data server takes the first such mark for the run's beginning.
        purge_step=from_step,
        max_queue=1000,
        flush_secs=10,
        filename_suffix=EVENT_SUFFIX,
    )


def add_scalar(writer: SummaryWriter, tag: str, value: float, step: int, description: str) -> None:
    """A point of a curve; TensorBoard shows the description of the first one beside the chart."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar import metadata

    about = metadata.create_summary_metadata(display_name="", description=description)
    value_of_tag = Summary.Value(tag=tag, simple_value=value, metadata=about)
    writer.file_writer.add_summary(Summary(value=[value_of_tag]), step)  # type: ignore[attr-defined]


def rendered(figure: Figure, dpi: int = 100) -> tuple[bytes, Any]:
    """A figure as PNG and as pixels, height x width x 3: drawn once, for that takes longer than all else."""
    import numpy as np
    from PIL import Image

    png = io.BytesIO()
    figure.savefig(png, dpi=dpi, format="png")
    return png.getvalue(), np.asarray(Image.open(png).convert("RGB"))


def as_code(text: str) -> str:
    """Markdown that keeps the columns of a text."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def tensorboard_command(logdir: Path) -> str:
    """The line that opens TensorBoard with the Python environment in use, ready to be pasted."""
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("tensorboard", path=scripts)
    words = [short(program)] if program else [short(sys.executable), "-m", "tensorboard.main"]
    return shlex.join([*words, "--logdir", str(logdir)])


def short(program: str) -> str:
    """The path from the current folder if the program lies below it, or else the whole path."""
    path, here = Path(program), Path.cwd()
    return str(path.relative_to(here)) if here in path.parents[1:] else str(path)
