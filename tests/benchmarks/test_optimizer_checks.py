"""The table of what the kit finds: the page is what the results say, and a fault is found, shown and kept."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from benchmarks.checked_optimizers import LIBRARIES, Subject
from benchmarks.checked_optimizers_table import page, remarks_of
from benchmarks.optimizer_checks import PAGE, RESULTS, verdicts
from tests.testing.wrong_optimizers import ReplacesItsParameters, Right

SLOW = {"compiled", "no growth", "descends", "sharded"}


class TakesNoScalars(Right):
    def update(self, p: Any, group: Any) -> None:
        if not p.dim():
            raise ValueError("no scalars, please")
        super().update(p, group)


class TakesNothing(Right):
    def update(self, p: Any, group: Any) -> None:
        raise ValueError("something else, please")


def test_a_fault_is_said_and_the_rest_passes() -> None:
    row = verdicts(Subject("wrong", ReplacesItsParameters), SLOW)
    assert [check for check, fault in row.items() if fault] == ["in place"]
    assert row["checkpoint"] == ""
    assert row["fused engine"] is None


def test_a_shape_that_it_does_not_take_spoils_no_other_check() -> None:
    row = verdicts(Subject("choosy", partial(TakesNoScalars, lr=1e-3)), SLOW)
    assert [check for check, fault in row.items() if fault] == ["shapes"]
    assert row["shapes"] == (
        "float64 on cpu, shapes: a parameter of shape (): ValueError: no scalars, please"
    )


def test_what_takes_nothing_is_not_checked() -> None:
    assert "something else, please" in str(verdicts(Subject("odd", TakesNothing), SLOW)[""])


def test_the_page_is_what_the_results_say() -> None:
    results, text = json.loads(RESULTS.read_text(encoding="utf-8")), PAGE.read_text(encoding="utf-8")
    assert list(results) == list(LIBRARIES)
    assert page(results, remarks_of(text)) == text
    assert not any(fault for row in results["torchopt_course"]["rows"].values() for fault in row.values())
