"""Everything that one run measured, and the three files that keep it: JSON, markdown, picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .bandwidth import Bandwidth, share
from .cases import Case
from .machine import Machine
from .startup import Startup
from .workloads import MODELS

# Whose share of the bandwidth is shown: the contenders that pass over the memory only once.
FUSED = ("fused", "ours")


@dataclass
class Report:
    """Filled section by section; what was not measured stays empty.

    Attributes:
        settings: the command line that the run was started with.
        skipped: the cases that could not be measured, with the reason.
    """

    machine: Machine
    settings: dict[str, Any]
    steps: list[Case] = field(default_factory=list)
    iterations: list[Case] = field(default_factory=list)
    bandwidths: list[Bandwidth] = field(default_factory=list)
    startup: Startup | None = None
    skipped: list[str] = field(default_factory=list)
    cuda: str = "not measured"

    def shares(self, case: Case) -> dict[str, float]:
        """Shares of the streaming bandwidth, for models that no cache holds and where it was measured."""
        limits = {bandwidth.threads: bandwidth for bandwidth in self.bandwidths}
        if not MODELS[case.model].large or case.threads not in limits:
            return {}
        return {
            name: share(case.bytes_per_element, case.elements, case.times[name].median, limits[case.threads])
            for name in FUSED
            if name in case.times
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "settings": self.settings,
            "bandwidth": [
                {**asdict(limit), "how": limit.how, "gigabytes_per_second": limit.gigabytes_per_second}
                for limit in self.bandwidths
            ],
            "step": [{**asdict(case), "shares": self.shares(case)} for case in self.steps],
            "iteration": [asdict(case) for case in self.iterations],
            "startup": asdict(self.startup) if self.startup else None,
            "skipped": self.skipped,
            "cuda": self.cuda,
        }

    def write(self, folder: Path) -> list[Path]:
        """Write ``cpu.json``, ``cpu.md`` and ``cpu.png``; returns what was written."""
        from .chart import draw
        from .tables import markdown

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("cpu.json", "cpu.md")]
        paths[0].write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        paths[1].write_text(markdown(self), encoding="utf-8")
        if self.steps or self.iterations:
            paths.append(folder / "cpu.png")
            draw(self, paths[-1])
        return paths
