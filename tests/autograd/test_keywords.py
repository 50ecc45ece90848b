"""Every form of arguments that torch takes, by position and by name: the same here, or refused by name."""

from __future__ import annotations

import pytest

pytest.importorskip("expecttest", reason="torch's data base of operators needs it")

FEW = [
    "flip",
    "pow",
    "add",
    "mean",
    "split",
    "nn.functional.gelu",
    "addmm",
    "std",
    "scatter",
    "take_along_dim",
]


def test_a_few_operators():
    from .judge.keywords import SAME, counted

    counts, others = counted(FEW)
    assert not others
    assert counts[SAME] > 30


def test_defaults_may_be_written_out():
    """std(x, out=None) once raised a TypeError, max(x, out=None) an IndexError."""
    from .judge.keywords import SAME, counted, defaults

    counts, others = counted(["std", "max.reduction_no_dim", "cat", "prod"], defaults)
    assert not others
    assert counts[SAME] > 30


@pytest.mark.slow
def test_all_operators():
    from .judge.cases import OPERATORS
    from .judge.keywords import SAME, counted

    counts, others = counted([*OPERATORS])
    assert not others
    assert counts[SAME] > 1500
