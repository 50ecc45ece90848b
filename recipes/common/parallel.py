"""Many small trainings at once, one process for each core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def in_parallel(
    function: Callable[[Job], Outcome], jobs: Sequence[Job], on_done: Callable[[], object] = lambda: None
) -> list[Outcome]:
    """`function` of every job, in the order of the jobs, each computed with one thread of torch.

    So small a network gains nothing from a second thread: two processes finish twice as many runs.
    """
    # joblib because it copies functions defined in a script, and survives Ctrl-C and dying workers.
    from joblib import Parallel, delayed

    def alone(job: Job) -> Outcome:
        torch.set_num_threads(1)
        return function(job)

    workers = min(len(jobs), os.cpu_count() or 1)
    outcomes = []
    for outcome in Parallel(n_jobs=workers, return_as="generator")(delayed(alone)(job) for job in jobs):
        outcomes.append(outcome)
        on_done()
    return outcomes
