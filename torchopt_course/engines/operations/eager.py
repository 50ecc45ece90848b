"""The eager engine: the rule's program as torch operations, one tensor at a time; the reference."""

from __future__ import annotations

from collections.abc import Sequence

from . import tensors
from .bucket import Columns, OperationsBucket
from .in_place import InPlace, Language


class EagerBucket(OperationsBucket):
    """Plain tensors that are updated one after the other."""

    ENGINE = "eager engine"

    @property
    def _language(self) -> Language:
        return tensors

    def _run(self, program: InPlace, columns: Columns, numbers: Sequence[float]) -> None:
        program.run(zip(*columns, strict=True), numbers)
