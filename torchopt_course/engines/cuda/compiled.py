"""What Triton makes of a kernel's source text, for each device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..native.compiler import CompilationError

Launcher = Callable[..., object]
# Elements that a program of a launch computes at a time: eight for each thread of its warps.
BLOCK, WARPS = 1024, 4


class Kernel:
    """A function for Triton, compiled before its first launch: what fails then has changed nothing."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._compiled: dict[int | None, Any] = {}  # for each device; not under Triton's interpreter

    def ready(self, programs: int, pointers: Sequence[Tensor], *numbers: float, anywhere: bool) -> Launcher:
        """What launches so many programs of it, when it is called under the device with all arguments.

        Args:
            anywhere: whether pointers may point to any address: then Triton looks at them in each launch.
                Torch's own memory begins at multiples of 512, for which this has been compiled.

        Raises:
            CompilationError: with the compiler's words.
        """
        device = pointers[0].device.index
        if device not in self._compiled:
            try:
                with torch.cuda.device(-1 if device is None else device):
                    options = {"grid": (1,), "BLOCK": BLOCK, "num_warps": WARPS}
                    self._compiled[device] = self._function.warmup(*pointers, *numbers, **options)
            except Exception as error:  # Triton fails in many ways; all of them mean the same here
                reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[-1]
                raise CompilationError(f"Triton cannot compile the rule: {reason}") from error
        if anywhere or device is None:
            return partial(self._function[(programs,)], num_warps=WARPS)
        launcher: Launcher = self._compiled[device][(programs, 1, 1)]
        return launcher
