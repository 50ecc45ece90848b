"""What every recipe's command line does alike: parse, and end with one line instead of a traceback."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro
from tqdm import tqdm

from recipes.common.checkpoint import CheckpointError
from recipes.common.fashion_mnist import DataError
from recipes.common.loop import TrainingDivergedError
from recipes.common.processes import is_first_process
from recipes.common.run_folder import FolderError
from recipes.common.stopping import StoppedError

Options = TypeVar("Options")


class OptionError(ValueError):
    """An option has a value that cannot work."""


def parse(options: type[Options]) -> Options:
    """Read the command line into a dataclass; its docstrings are the help text."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(options)
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        fail(f"{in_one_line(complaint.getvalue())} (--help lists all options)", 2)


def check_seed(seed: int) -> None:
    """Refuse what torch's generators do not take; experiments count up from it, so it has room above."""
    if not 0 <= seed < 2**62:
        raise OptionError(f"--seed must be from 0 to 2**62 - 1, not {seed}")


def in_one_line(box: str) -> str:
    """The first paragraph inside the box that tyro draws around a message."""
    inside = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    sentence: list[str] = []
    for line in inside:
        if not line.strip("─"):  # an empty line or a rule: the end of the paragraph
            break
        sentence.append(line)
    return " ".join(sentence)


def progress_bar(total: int, unit: str, name: str = "") -> Any:
    """A bar on stderr, for a person at a terminal only: a pipe or a log file gets nothing."""
    return tqdm(total=total, unit=unit, desc=name, disable=None if is_first_process() else True)


@contextlib.contextmanager
def plain_endings() -> Iterator[None]:
    """End the program with one clear line for everything that is the user's or the machine's doing."""
    try:
        yield
    except (OptionError, FolderError) as error:
        fail(str(error), 2)
    except (CheckpointError, DataError) as error:
        fail(str(error), 1)
    except StoppedError as stop:
        fail(stop.message, stop.exit_code)
    except TrainingDivergedError as error:
        fail(f"training diverged: {error}; a smaller learning rate may help", 1)
    except OSError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted; what was logged so far can be read", 130)


def fail(message: str, exit_code: int) -> NoReturn:
    """Say on stderr why the program ends here; of many processes one is enough."""
    if is_first_process():
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(exit_code)
