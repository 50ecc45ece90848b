"""Which of torch's operations are functions of one number at a time: torch says it itself, by tags."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Pointwise(TorchDispatchMode):
    """Asks torch of all operations inside whether they are functions of one number at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.failed = False

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        tags = operation.tags
        self.failed |= operation.overloadpacket not in _AS_THEY_ARE and (
            torch.Tag.pointwise not in tags or torch.Tag.nondeterministic_seeded in tags
        )
        return operation(*arguments, **(keywords or {}))


_aten = torch.ops.aten
# They copy, or make one like another: torch does not call that pointwise. Nor whole quotients.
_AS_THEY_ARE = {
    _aten.alias, _aten.detach, _aten.clone, _aten._to_copy, _aten.lift_fresh, _aten.scalar_tensor,
    _aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.floor_divide,
}  # fmt: skip
