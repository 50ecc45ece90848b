"""Ctrl-C and SIGTERM: the step is finished and saved before the program ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

        if threading.current_thread() is threading.main_thread():  # no other gets signals
            for number in SIGNALS:
                handlers_before.callback(signal.signal, number, signal.signal(number, note))
        yield request
