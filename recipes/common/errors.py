"""What is the user's or the machine's doing, and so is told in one line instead of a traceback."""

from __future__ import annotations

import signal


class UserError(Exception):
    """Base of all errors that `plain_endings` turns into one line; `exit_code` is what the shell gets."""

    exit_code = 1


class OptionError(UserError, ValueError):
    """An option has a value that cannot work, or no effect."""

    exit_code = 2


class FolderError(UserError):
    """The folder cannot take a run."""

    exit_code = 2


class CheckpointError(UserError):
    """There are checkpoints, and none can be gone on from."""


class DataError(UserError):
    """The data are not there, or not what they should be."""


class TrainingDivergedError(UserError, ArithmeticError):
    """The loss or a gradient is no longer finite: a step would only spread it over all weights."""


class StoppedError(UserError):
    """The program was asked to stop by a signal; the exit code is what a shell calls it: 130 for Ctrl-C."""

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class AlreadyFinished(UserError):  # no error: there is nothing left to do
    """The folder holds the outcome that was asked for; the message is that outcome."""

    exit_code = 0
