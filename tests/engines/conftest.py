"""What the tests of several engines watch."""

from __future__ import annotations

from typing import Any

import pytest

from torchopt_course.engines.prepared import PreparedStep


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each step was the one that had been prepared."""
    record: list[bool] = []
    take = PreparedStep.take

    def noted(self: PreparedStep, optimizer: Any) -> bool:
        record.append(take(self, optimizer))
        return record[-1]

    monkeypatch.setattr(PreparedStep, "take", noted)
    return record
