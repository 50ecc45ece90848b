"""Small trainings in processes of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recipes.common.parallel import done_jobs


@dataclass
class Square:
    value: int
    process: int
    threads: int


def square(number: int) -> Square:
    return Square(number**2, os.getpid(), torch.get_num_threads())


def test_processes_give_the_outcome_of_every_job_and_none_is_computed_twice(tmp_path: Path) -> None:
    def outcomes(*values: int) -> dict[Any, Square]:
        return dict(done_jobs(square, [(value,) for value in values], tmp_path / "kept", parallel=True))

    first = outcomes(3, 1, 2)
    assert {job: one.value for job, one in first.items()} == {(3,): 9, (1,): 1, (2,): 4}
    assert os.getpid() not in {one.process for one in first.values()}
    assert {one.threads for one in first.values()} == {1}
    # Of the same processes: they were not computed again.
    again = outcomes(2, 4, 3)
    assert {job: again[job] for job in ((2,), (3,))} == {job: first[job] for job in ((2,), (3,))}
    assert [*again] == [(2,), (3,), (4,)]
    assert again[4,].value == 16
