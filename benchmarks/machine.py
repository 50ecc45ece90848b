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
from time import perf_counter, process_time

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

    def is_same(self, other: Machine) -> bool:
        """Whether figures of the two may stand in one table."""
        return (self.processor, self.cores, self.threads, self.system, self.versions) == (
            *(other.processor, other.cores, other.threads, other.system, other.versions),
        )

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


@dataclass
class Others:
    """What the rest of the machine did while something was measured.

    Attributes:
        share: of all cores' time, by other processes; ``None`` where the system does not tell.
    """

    share: float | None = None


@contextmanager
def watching_others() -> Iterator[Others]:
    """Fill in ``share`` at the end of the block."""
    others = Others()
    busy, own, start = _busy_seconds(), process_time(), perf_counter()
    yield others
    if busy is not None and (now := _busy_seconds()) is not None:
        used = now - busy - (process_time() - own)
        others.share = max(0.0, used / (perf_counter() - start) / (os.cpu_count() or 1))


def _busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the machine was started."""
    try:
        user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return None  # not Linux
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch, and with it this package, use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
