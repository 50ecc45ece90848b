"""Step counts that live in host memory, counted up behind Python's back as a kernel on the device would."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ..native.compiler import callable_at, native


@cache
def count_steps(dtype: torch.dtype) -> Callable[..., object]:
    """``count(table, rows, columns, absent)``: one more at the address, in host memory, that ends each row
    which is not absent."""
    kind = str(dtype).removeprefix("torch.")

    def build() -> Callable[..., Any]:
        import numba

        from ..native.intrinsics import pointer_to

        words, steps = pointer_to(numba.int64), pointer_to(getattr(numba, kind))

        def count(table: Any, rows: Any, columns: Any, absent: Any) -> Any:
            last = words(table + 8 * (columns - 1))
            left_out = words(absent)
            for i in range(rows):
                if not left_out[i]:
                    steps(last[i * columns])[0] += 1

        return count

    return callable_at(native("count_steps", f"count_steps {kind} 2", build, 4), 4, holds_gil=False)
