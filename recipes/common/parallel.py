"""Many small trainings, one after the other or one for each core; none is done twice."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import starmap
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_type_hints

import torch

from recipes.common.command_line import end_with
from recipes.common.folder import read_json, write_json

Job: TypeAlias = tuple[Hashable, ...]
Outcome = TypeVar("Outcome")


def done_jobs(
    function: Callable[..., Outcome], jobs: Iterable[Job], folder: Path, parallel: bool
) -> Iterator[tuple[Job, Outcome]]:
    """Every job, the arguments of one call of `function`, and its outcome.

    Outcomes, dataclasses, are kept in `folder`, in files that are named by the job, the function's file and
    torch's version, and come from there, first, when the same program asks for the same jobs again.
    """
    kind: Any = get_type_hints(function)["return"]
    code = f"{torch.__version__} {Path(inspect.getfile(function)).read_text(encoding='utf-8')}"
    files = {job: folder / f"{sha256(f'{job!r} {code}'.encode()).hexdigest()[:32]}.json" for job in jobs}
    missing = []
    for job, file in files.items():
        if content := read_json(file):
            yield job, kind(**content)
        else:
            missing.append(job)
    new = each_core(function, missing) if parallel and missing else starmap(function, missing)
    for job, outcome in zip(missing, new, strict=True):
        folder.mkdir(exist_ok=True)
        write_json(files[job], dataclasses.asdict(outcome))  # type: ignore[call-overload]
        yield job, outcome


def each_core(function: Callable[..., Outcome], jobs: Sequence[Job]) -> Iterable[Outcome]:
    """One process for each core, each with one thread of torch: so small a network gains nothing from two."""
    # joblib because it copies functions defined in a script, and survives Ctrl-C and dying workers.
    from joblib import Parallel, delayed

    recipe = os.getpid()

    def alone(*job: Hashable) -> Outcome:
        end_with(recipe)
        torch.set_num_threads(1)
        return function(*job)

    workers = min(len(jobs), os.cpu_count() or 1)
    return Parallel(n_jobs=workers, return_as="generator")(delayed(alone)(*job) for job in jobs)  # type: ignore[no-any-return]
