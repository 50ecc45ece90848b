"""A share of the judge: what was once wrong, and some operators by chance. All of it is marked slow.

Torch's data bases take seconds to import: only who runs these tests waits for them, not who collects them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from torchopt_course.autograd import PRIMITIVES

pytest.importorskip("expecttest", reason="torch's data bases of operators need it")

from .judge.left_out import OTHER_AT_TIES
from .judge.quick import JUDGED, NAMES, by_chance
from .test_mutations import mutants


def faults(name: str, most: int, cases: int | None = None) -> Iterator[str]:
    from .judge.cases import cases_of
    from .judge.verdict import CRASH, WRONG, judge

    for case in islice(cases_of(name, most), cases):
        verdict = judge(case)
        if verdict.kind in (WRONG, CRASH):
            yield f"{verdict.kind} {case}: {verdict.note}"


@pytest.mark.parametrize("name", NAMES)
def test_a_few_cases_are_equal_or_refused(name: str):
    assert not list(faults(name, 2, 4))


@pytest.mark.parametrize("which", range(5))
def test_others_by_chance_are_equal_or_refused(which: int):
    assert not list(faults(by_chance(5)[which], 2, 4))


@pytest.mark.slow
def test_every_case_is_equal_or_refused():
    from .judge.cases import MODULES, OPERATORS
    from .judge.running import reports

    found = [fault for each in reports([*OPERATORS, *MODULES], most=20) for fault in each.faults]
    assert not found, "\n".join(found)


# Zero whatever one does to it; and what only the second derivative of a linear function reaches.
UNSEEN = {"angle", "div_rounded", "nextafter", "avg_pool3d_backward", "adaptive_avg_pool3d_backward"}
UNSEEN |= {name for name, operator in JUDGED.items() if (operator, torch.float64) in OTHER_AT_TIES}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*JUDGED} - UNSEEN))
def test_a_wrong_derivative_is_found(name: str):
    for what, mutated in mutants(PRIMITIVES[name]):
        with mutated:
            assert next(faults(JUDGED[name], 12), None), what
