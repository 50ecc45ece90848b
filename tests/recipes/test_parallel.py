"""Small trainings in processes of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.common.parallel import done_jobs


@dataclass
class Square:
    value: int
    process: int
    threads: int


def square(number: int) -> Square:
    return Square(number**2, os.getpid(), torch.get_num_threads())


def test_processes_give_outcomes_in_the_order_of_the_jobs_and_none_twice(tmp_path: Path) -> None:
    done: list[None] = []

    def outcomes(*values: int) -> list[Square]:
        return done_jobs(
            square, [(value,) for value in values], lambda: done.append(None), tmp_path / "kept", True
        )

    first = outcomes(3, 1, 2)
    assert [one.value for one in first] == [9, 1, 4]
    assert os.getpid() not in {one.process for one in first}
    assert {one.threads for one in first} == {1}
    assert outcomes(2, 3) == [first[2], first[0]]  # of the same processes: they were not computed again
    assert len(done) == 5
