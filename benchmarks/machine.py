"""Which machine this is, and what it has to spare."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

import torchopt_course


@dataclass(frozen=True)
class Machine:
    """What a reader has to know to compare the figures with those of another machine.

    Attributes:
        load: how many processes wanted a core in the minute before; figures of a busy machine are noise.
    """

    processor: str
    cores: int
    threads: int
    system: str
    date: str
    versions: dict[str, str]
    load: float | None

    @property
    def title(self) -> str:
        return f"{self.processor}, {self.cores} core{'s' * (self.cores != 1)}"

    def facts(self) -> str:
        """What stands above the tables, as a Markdown list."""
        lines = [
            f"{self.title}, {self.system}",
            self.date,
            ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            *([] if self.load is None else [f"load before the run: {self.load:.1f}"]),
        ]
        return "\n".join(f"- {line}" for line in lines)


def this_machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=f"{platform.system()} {platform.machine()}",
        date=datetime.now().astimezone().isoformat(timespec="minutes"),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numba": version("numba"),
            "torchopt_course": torchopt_course.__version__,
        },
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def free_bytes() -> int | None:
    """Memory that can be had without swapping, where the system tells."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch, and with it this package, use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
