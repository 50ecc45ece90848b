"""Ctrl-C and SIGTERM: the step is finished and saved before the program ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from recipes.common.command_line import answer


class StopRequest:
    """Which signal has come, if any."""

    number: int = 0


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take note of the first signal instead of dying from it; a second one ends the program at once."""
    request = StopRequest()
    with contextlib.ExitStack() as handlers_before:

        def note(number: int, frame: FrameType | None) -> None:
            request.number = number
            handlers_before.close()

        for number in (signal.SIGINT, signal.SIGTERM):
            answer(number, note, handlers_before)
        yield request
