"""The list of checks, and how one of them is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from .trial import Trial
from .verdict import NotAsked, OptimizerError

CheckFunction: TypeAlias = Callable[[Trial], None]

DOUBLE = (torch.float64,)
FULL = (torch.float64, torch.float32)
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Promise:
    """What every optimizer must hold, and the function that tries it.

    Attributes:
        name: of the function without ``check_``, with blanks.
        words: the first line of its docstring.
        dtypes: the precisions in which it is tried.
    """

    name: str
    words: str
    function: CheckFunction
    dtypes: tuple[torch.dtype, ...]


PROMISES: list[Promise] = []


def check(*dtypes: torch.dtype) -> Callable[[CheckFunction], CheckFunction]:
    """Put a function on the list."""

    def listed(function: CheckFunction) -> CheckFunction:
        name = function.__name__.removeprefix("check_").replace("_", " ")
        words = (function.__doc__ or "").strip().splitlines()[0].removesuffix(".")
        PROMISES.append(Promise(name, words, function, dtypes or DOUBLE))
        return function

    return listed


@dataclass(frozen=True)
class OptimizerCheck:
    """One check of one optimizer on one device in one precision; call it.

    Attributes:
        promise: what is checked.
        trial: of which optimizer, with which parameters.
    """

    promise: Promise
    trial: Trial

    @property
    def name(self) -> str:
        return self.promise.name

    def __str__(self) -> str:
        return f"{self.trial}, {self.name}"

    def __call__(self) -> None:
        """Run it.

        Raises:
            OptimizerError: it has failed, or something in it has raised.
            unittest.SkipTest: it does not apply to this optimizer; pytest reports that as skipped.
        """
        try:
            self.promise.function(self.trial)
        except NotAsked:
            raise
        except OptimizerError as error:
            raise OptimizerError(f"{self}: {error}") from error.__cause__
        except Exception as error:
            raise OptimizerError(f"{self}: {type(error).__name__}: {error}") from error
