"""What was measured on a GPU, as it is kept in ``cuda.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import torchopt_course

from ..timing import Spread
from ..workloads import OURS
from .blocks import Samples, Times, ratios_of, times_of

PACKAGES = ("torch", "triton", "numba", "timm")


@dataclass
class Row:
    """One case.

    Attributes:
        part: of the run, such as "in the loop".
        what: the optimizer, or the way of storing.
        engine: of ours, in the words of its ``engine_report()``.
        times, ratios: microseconds of each contender, and theirs by ours.
        numbers: others, by name and unit.
        notes: on who could not take part.
        seconds: that the case took, compilations and all.
    """

    part: str
    model: str
    what: str
    elements: int = 0
    engine: str = ""
    rounds: int = 0
    times: dict[str, Times] = field(default_factory=dict)
    ratios: dict[str, Times] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def fill(self, samples: Samples) -> None:
        self.times, self.ratios = times_of(samples), ratios_of(samples, OURS)
        self.rounds = min(map(len, samples.values()))

    def line(self) -> str:
        """What the case has found, for who watches."""
        times = [
            f"{name} {each.host.median:,.0f} / {each.whole.median:,.0f}" for name, each in self.times.items()
        ]
        ratios = [
            f"{name} {each.host.median:.2f} / {each.whole.median:.2f}" for name, each in self.ratios.items()
        ]
        numbers = [f"{name} {value:,.4g}" for name, value in self.numbers.items()]
        parts = [
            *([f"host / whole µs: {', '.join(times)}"] if times else []),
            *([f"by ours: {', '.join(ratios)}"] if ratios else []),
            *numbers,
            *self.notes,
            *([self.engine.splitlines()[0]] if self.engine else []),
            f"{self.seconds:.1f} s",
        ]
        return "; ".join(parts)


@dataclass
class Record:
    """Attributes:
    rows: by the label of the case.
    failed: why a case could not be measured.
    running: the case that was begun and has not ended.
    """

    device: str
    date: str
    versions: dict[str, str]
    facts: dict[str, float] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    running: str | None = None

    def is_same(self, other: Record) -> bool:
        """Whether rows of the two may stand in one table."""
        return (self.device, self.versions) == (other.device, other.versions)

    def write(self, path: Path) -> None:
        whole = path.with_suffix(".part")
        whole.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        whole.replace(path)  # who is stopped meanwhile leaves the older one

    def of(self, part: str) -> list[Row]:
        return [row for row in self.rows.values() if row.part == part]


def new_record(device: torch.device) -> Record:
    """A record of this machine without rows. It starts CUDA."""
    date = datetime.now().astimezone().isoformat(timespec="minutes")
    versions = {"python": platform.python_version(), "torchopt_course": torchopt_course.__version__}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if device.type != "cuda":
        return Record("CPU", date, versions)
    properties = torch.cuda.get_device_properties(device)
    facts = {"memory GB": properties.total_memory / 1e9, "multiprocessors": properties.multi_processor_count}
    return Record(torch.cuda.get_device_name(device), date, versions, facts)


def read(path: Path) -> Record:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Record(**{**content, "rows": {label: _row(row) for label, row in content["rows"].items()}})


def _row(content: Mapping[str, Any]) -> Row:
    timed = {
        kind: {name: Times(*(Spread(**each) for each in both)) for name, both in content[kind].items()}
        for kind in ("times", "ratios")
    }
    return Row(**{**content, **timed})
