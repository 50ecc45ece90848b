"""Many small trainings, one after the other or one for each core; none is done twice."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import torch

from recipes.common.folder import read_json, write_json

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def done_jobs(
    function: Callable[[Job], Outcome],
    jobs: Sequence[Job],
    on_done: Callable[[], object],
    folder: Path,
    parallel: bool,
) -> list[Outcome]:
    """`function` of every job, a dataclass, in the order of the jobs; its outcomes are dataclasses too.

    They are kept in `folder`, and read from there when the same program asks for the same jobs again.
    """
    memory = Memory(folder, function)
    outcomes = {job: memory.recall(job) for job in jobs}
    missing = [job for job, outcome in outcomes.items() if outcome is None]
    for _ in range(len(jobs) - len(missing)):
        on_done()
    new = each_core(function, missing) if parallel and missing else map(function, missing)
    for job, outcome in zip(missing, new, strict=True):
        memory.keep(job, outcome)
        outcomes[job] = outcome
        on_done()
    return [outcomes[job] for job in jobs]  # type: ignore[misc]  # none is missing now


def each_core(function: Callable[[Job], Outcome], jobs: Sequence[Job]) -> Iterable[Outcome]:
    """One process for each core, each with one thread of torch: so small a network gains nothing from two."""
    # joblib because it copies functions defined in a script, and survives Ctrl-C and dying workers.
    from joblib import Parallel, delayed

    def alone(job: Job) -> Outcome:
        torch.set_num_threads(1)
        return function(job)

    workers = min(len(jobs), os.cpu_count() or 1)
    return Parallel(n_jobs=workers, return_as="generator")(delayed(alone)(job) for job in jobs)  # type: ignore[no-any-return]


class Memory(Generic[Job, Outcome]):
    """Outcomes as files that are named by the job, the function's file and torch's version."""

    def __init__(self, folder: Path, function: Callable[[Job], Outcome]) -> None:
        self.folder = folder
        self.kind: Any = get_type_hints(function)["return"]
        self.code = f"{torch.__version__} {Path(inspect.getfile(function)).read_text(encoding='utf-8')}"

    def path(self, job: Job) -> Path:
        return self.folder / f"{hashlib.sha256(f'{job!r} {self.code}'.encode()).hexdigest()[:32]}.json"

    def recall(self, job: Job) -> Outcome | None:
        content = read_json(self.path(job))
        return None if content is None else self.kind(**content)

    def keep(self, job: Job, outcome: Outcome) -> None:
        self.folder.mkdir(exist_ok=True)
        write_json(self.path(job), dataclasses.asdict(outcome))  # type: ignore[call-overload]
