"""Everything that was measured, as it is kept in ``cpu.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .bandwidth import Bandwidth, share
from .cases import Case, Result, Times
from .machine import Machine
from .startup import Startup
from .timing import Spread
from .workloads import MODELS

# Whose share of the bandwidth is shown: the contenders that pass over the memory only once.
FUSED = ("fused", "ours")


@dataclass
class Report:
    """Filled case by case; what was not measured stays empty.

    Attributes:
        results: by the label of their case.
        skipped: the cases that could not be measured, with the reason.
    """

    machine: Machine
    results: dict[str, Result] = field(default_factory=dict)
    bandwidths: dict[int, Bandwidth] = field(default_factory=dict)
    startup: Startup | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def of(self, where: str) -> list[Result]:
        """What was measured there."""
        return [result for result in self.results.values() if result.case.where == where]

    def shares(self, result: Result) -> dict[str, float]:
        """Shares of the streaming bandwidth, for models that no cache holds and where it was measured."""
        limit = self.bandwidths.get(result.case.threads)
        if not MODELS[result.case.model].large or limit is None:
            return {}
        times = result.step.microseconds
        return {
            name: share(result.bytes_per_element, result.elements, times[name].median, limit)
            for name in FUSED
            if name in times
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Report:
    """The report that :meth:`Report.write` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    startup = content["startup"]
    return Report(
        machine=Machine(**content["machine"]),
        results={label: _result(result) for label, result in content["results"].items()},
        bandwidths={int(count): Bandwidth(**limit) for count, limit in content["bandwidths"].items()},
        startup=startup and Startup(**_spreads(startup)),
        skipped=content["skipped"],
    )


def _result(content: dict[str, Any]) -> Result:
    times = {
        name: content[name] and Times(**{kind: _spreads(values) for kind, values in content[name].items()})
        for name in ("step", "iteration")
    }
    return Result(**{**content, **times, "case": Case(**content["case"])})


def _spreads(content: dict[str, Any]) -> dict[str, Spread]:
    return {name: Spread(**values) for name, values in content.items()}
