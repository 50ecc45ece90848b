"""What every recipe's command line does alike: parse, and end with one line instead of a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import itertools
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from recipes.common.errors import AlreadyFinished, OptionError, UserError

INSTALL = "pip install 'torchopt-course[recipes]' brings all that the recipes need"
try:
    import tyro
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} cannot be imported; {INSTALL}") from error

Options = TypeVar("Options")


def parse(options: type[Options], **how: Any) -> Options:
    """Read the command line into a dataclass; its docstrings are the help text. `how` goes to tyro."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe may have no character for ± or for a user's name
        # Line by line, for when Python ends it is too late to say that nobody takes them.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    for before, word in itertools.pairwise(sys.argv):
        if re.fullmatch(r"(--[\w-]+=)?", word):
            fail(f"{(word or before).rstrip('=')} has an empty value; leave it out, or name one", 2)
        if re.search(r"[\ud800-\udfff]", word):  # TensorBoard opens no such folder
            fail(f"{word!a} has bytes that are no characters in this locale; LC_ALL=C.UTF-8 may help", 2)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed: Any = tyro.cli(options, config=(tyro.conf.FlagCreatePairsOff,), **how)
        # In --logdir=~/runs the shell leaves the tilde as it is.
        paths = {name: value for name, value in vars(parsed).items() if isinstance(value, Path)}
        homes = {name: Path(os.path.expanduser(path)) for name, path in paths.items()}
        return dataclasses.replace(parsed, **homes)  # type: ignore[no-any-return]
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        fail(f"{in_one_line(complaint.getvalue())} (--help lists all options)", 2)
    except OSError as error:  # nobody reads the help to its end
        fail(str(error), 1)


def option(metavar: str, default: str) -> Any:
    """How --help writes an option that need not be given."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def in_one_line(box: str) -> str:
    """What tyro's box complains of, and the options that it thinks were meant."""
    inside = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    if "╭" not in box:  # where an encoding has no such lines, the title stands above a rule of dashes
        inside = inside[2:]
    rules = [i for i, line in enumerate(inside) if not line.strip("─-")]  # they part paragraphs
    sentence = " ".join(inside[: rules[0] if rules else None])
    meant = [
        line.split()[0].rstrip(",")
        for title, line in itertools.pairwise(inside)
        if title.startswith(("Perhaps you meant", "Arguments similar to"))
    ]
    return f"{sentence}; perhaps you meant {', '.join(meant)}" if meant else sentence


def check_seed(seed: int) -> int:
    """Refuse what torch's generators do not take; experiments count up from it, so it has room above."""
    if not 0 <= seed < 2**62:
        raise OptionError(f"--seed must be from 0 to 2**62 - 1, not {seed}")
    return seed


def need(*modules: str) -> None:
    """Say what is not installed before anything is computed or written."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} cannot be imported; {INSTALL}")


def is_first_process() -> bool:
    """Is this the process that speaks to the user? torchrun numbers those that it starts."""
    return os.environ.get("RANK", "0") == "0"


def progress_bar(total: int, unit: str, name: str = "") -> Any:
    """A bar on stderr, for a person at a terminal only: a pipe or a log file gets nothing."""
    return tqdm(total=total, unit=unit, desc=name, disable=None if is_first_process() else True)


def answer(number: int, handler: Any, before: contextlib.ExitStack) -> None:
    """Call `handler` at a signal until `before` is closed; but in a script's background some are ignored."""
    # Only the main thread gets signals.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(number) != signal.SIG_IGN:
        before.callback(signal.signal, number, signal.signal(number, handler))


@contextlib.contextmanager
def plain_endings() -> Iterator[None]:
    """End the program with one clear line for everything that is the user's or the machine's doing."""
    if "RECIPES_GALLERY" in os.environ:
        end_with(int(os.environ["RECIPES_GALLERY"]))
    print_error = threading.excepthook
    with contextlib.ExitStack() as before:
        before.callback(setattr, threading, "excepthook", print_error)
        # A thread that writes for TensorBoard hands a full disk to whoever flushes it: once is enough.
        threading.excepthook = lambda e: None if isinstance(e.exc_value, OSError) else print_error(e)
        # Not at once, as while modules are imported: processes of its own are ended first, and files closed.
        answer(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM), before)
        answer(signal.SIGINT, signal.default_int_handler, before)
        try:
            try:
                yield
            except AlreadyFinished as outcome:
                print(outcome)  # which may be an OSError
        except UserError as error:
            fail(str(error), error.exit_code)
        except ImportError as error:
            if error.name is None or error.name.partition(".")[0] in ("recipes", "torch", "torchopt_course"):
                raise
            fail(f"{error.name} cannot be imported; {INSTALL}", 1)
        except OSError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # --compile
                fail(f"torch.compile failed: {first_line(error)}; without --compile no compiler is needed", 1)
            raise


@cache  # once in each process
def end_with(parent: int) -> None:
    """End this process soon after its parent, also one that was killed: nobody could take its outcome."""

    def watch() -> None:
        while parent in (os.getpid(), os.getppid()):  # joblib calls a single job without another process
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def first_line(error: BaseException) -> str:
    """The first line of a message, or the kind of error if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fail(message: str, exit_code: int) -> NoReturn:
    """Say on stderr why the program ends here; of many processes one is enough."""
    if is_first_process():
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(exit_code)
