"""``python -m benchmarks.storage``: what ways of storing cost and save, beside torch and DeepSpeed's CPUAdam.

Three tables: Adam's step in each way beside torch's fused one in float32; the step of who keeps float32
masters on the host while a device computes, beside others that do that; and the peak memory of a training
whose gradients are released in the backward pass. Each pair is measured in a process of its own,
:mod:`benchmarks.storage_case`. Writes ``storage.json`` and ``storage.md``, and the tables into
``docs/low_precision.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .cuda import record as on_gpu
from .cuda.others import STORING
from .cuda.pages import engines_of
from .cuda.record import Record, Row
from .fresh_process import ROOT, measured_by
from .machine import Machine, this_machine
from .marks import Marks
from .plan import is_asked_for
from .storage_case import FULL, MODELS, WAYS, Found
from .storage_memory import HOW, peak_of
from .table import Table, three_digits
from .timing import Spread
from .workloads import OURS

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "low_precision.md"
MARKS = Marks("<!-- measured: written by python -m benchmarks.storage -->", "<!-- end of measured -->")
THREADS = 2
# For who offloads: how the numbers are kept, and who else does that.
OFFLOADED = ("float32", "gradients bfloat16", "gradients and states bfloat16", "all bfloat16")
OTHERS = ("torch default", "torch fused", "DeepSpeed CPUAdam")


@dataclass
class Report:
    """Attributes:
    found, skipped: by the label of the case, which says what was measured, or why not.
    peaks: MB of a training, by how its gradients and states are kept.
    """

    machine: Machine
    found: dict[str, Found] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def of(self, way: str, peer: str, model: str) -> Found | None:
        return self.found.get(label_of(way, peer, model))


def read(path: Path) -> Report:
    content = json.loads(path.read_text(encoding="utf-8"))
    found = {label: _found(values) for label, values in content["found"].items()}
    return Report(Machine(**content["machine"]), found, content["skipped"], content["peaks"])


def _found(values: dict[str, Any]) -> Found:
    return Found(**{**values, **{name: Spread(**values[name]) for name in ("ours", "theirs", "ratio")}})


Case = tuple[str, str, str]


def label_of(way: str, peer: str, model: str) -> str:
    return f"{MODELS[model][0]}, {way}: {peer}"


def all_cases() -> dict[str, Case]:
    cases: list[Case] = [(way, FULL, "gpt2") for way in WAYS]
    cases += [(way, peer, model) for model in MODELS for way in OFFLOADED for peer in OTHERS]
    return {label_of(*case): case for case in cases}


# -- tables --------------------------------------------------------------------------------------------------


def tables(report: Report, gpu: Record | None = None) -> list[Table]:
    return [table for table in (_ways(report, gpu), _offloaded(report), _memory(report)) if table.rows]


def _ways(report: Report, gpu: Record | None) -> Table:
    there = {row.what: row for row in gpu.of(STORING)} if gpu else {}
    rows = []
    for way in WAYS:
        if found := report.of(way, FULL, "gpt2"):
            both = _ms(found), three_digits(found.theirs.median)
            rows.append([way, f"{found.bytes_of_states:.2f}", *both, _ratio(found), *_on_gpu(there.get(way))])
    return Table(
        f"Adam's step on GPT-2 small, 124 million elements, {THREADS} threads",
        [
            "float32, if nothing else is said",
            "bytes of states",
            "ours, ms",
            "torch fused, ms",
            "torch / ours",
            *("on the GPU: ours, ms", "torch / ours"),
        ],
        rows,
        "Beside torch's fused Adam with everything in float32, which has 8 bytes of states for each element: "
        "above 1, ours is faster."
        + (f" The GPU: {gpu.device}, torch {gpu.versions['torch']}." if gpu and there else ""),
    ).without_empty_columns()


def _on_gpu(row: Row | None) -> list[str]:
    """Empty where it was not measured; with the engine's name, if it is not the usual one."""
    if row is None:
        return ["", ""]
    engine = "" if (name := engines_of(row)) == "fused CUDA engine" else f" ({name})"
    ours, ratio = row.times[OURS].whole.median / 1000, row.ratios["fused"].whole.median
    return [f"{three_digits(ours)}{engine}", f"{ratio:.2f}"]


def _offloaded(report: Report) -> Table:
    rows = []
    for model, (title, _) in MODELS.items():
        for way in OFFLOADED:
            found = [report.of(way, peer, model) for peer in OTHERS]
            if any(found):
                ours = next(each for each in found if each)
                rows.append([f"{title}, {way}", _ms(ours), *map(_ratio, found)])
    return Table(
        f"Adam's step on the host, {THREADS} threads",
        ["", "ours, ms", *(f"{peer} / ours" for peer in OTHERS)],
        rows,
        "What others take by what ours takes. None of them reads gradients of 16 bits for float32 masters: "
        "they get a copy, a part of their step; nor have they states of 16 bits beside those. torch "
        "default makes its temporary tensors anew in each step: the C library hands some or all of their "
        "pages back to the system, which clears 0.15 to 0.76 GB of them again, and that more than doubles "
        "its time, whatever the gradients are. Compare its rows with care.",
    )


def _memory(report: Report) -> Table:
    rows = [[how, f"{report.peaks[how]:,.0f}"] for how in HOW if how in report.peaks]
    return Table(
        "Memory of a training whose gradients are released",
        ["gradients, states", "peak, MB"],
        rows,
        "A transformer of 88 million float32 parameters, Adam, three steps.",
    )


def _ms(found: Found | None) -> str:
    return "" if found is None else three_digits(found.ours.median)


def _ratio(found: Found | None) -> str:
    return "" if found is None else f"{found.ratio.median:.2f}"


def markdown(report: Report) -> str:
    parts = [
        "# Ways of storing",
        f"{report.machine.facts()}\n- medians; `python -m benchmarks.storage` wrote this",
        *(table.as_markdown() for table in tables(report)),
    ]
    if report.skipped:
        parts.append("## Skipped\n\n" + "\n".join(f"- {name}: {why}" for name, why in report.skipped.items()))
    return "\n\n".join(parts) + "\n"


def section(report: Report, gpu: Record | None) -> str:
    """What stands in the docs."""
    versions = ", ".join(f"{name} {version}" for name, version in report.machine.versions.items())
    machine = f"{report.machine.title}, {versions}; medians."
    return "\n\n".join([machine, *(f"#{table.as_markdown()}" for table in tables(report, gpu))])


def write_page(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Put what was measured here, and on a GPU if there is a record of one, between the marks."""
    gpu = results / "cuda.json"
    text = section(read(results / "storage.json"), on_gpu.read(gpu) if gpu.exists() else None)
    page.write_text(MARKS.rewritten(page.read_text(encoding="utf-8"), text), encoding="utf-8")


# -- the command ---------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storage", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help='measure these and keep what the record holds of others: "medium DeepSpeed", "8 bits", peak',
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="for each pair (default 8)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of storage.json and storage.md")
    options = parser.parse_args(arguments)
    cases, peaks = all_cases(), {f"peak, {how}": how for how in HOW}
    asked = [label for label in (*cases, *peaks) if is_asked_for(label, options.only)]
    if not asked:
        parser.error("--only: none of these is meant:\n" + "\n".join((*cases, *peaks)))
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / "storage.json"
    report = Report(this_machine())
    if options.only and path.exists() and (before := read(path)).machine.is_same(report.machine):
        report = before
    for label in asked:
        report.skipped.pop(label, None)
        if label in peaks:
            report.peaks[peaks[label]] = peak_of(peaks[label])
            print(f"{label}: {report.peaks[peaks[label]]:,.0f} MB", file=sys.stderr, flush=True)
        else:
            _measure(report, label, cases[label], options.seconds)
        path.write_text(report.as_json(), encoding="utf-8")
    (options.out / "storage.md").write_text(markdown(report), encoding="utf-8")
    if options.out == RESULTS:
        write_page()
    for table in tables(report):
        print(f"\n{table.as_text()}")


def _measure(report: Report, label: str, case: Case, seconds: float) -> None:
    arguments = *case, f"--threads={THREADS}", f"--seconds={seconds}"
    ended = measured_by("benchmarks.storage_case", *arguments)
    report.found.pop(label, None)
    if "skipped" in ended:
        report.skipped[label] = ended["skipped"]
        print(f"{label}: skipped, {ended['skipped']}", file=sys.stderr, flush=True)
        return
    found = report.found[label] = _found(ended)
    print(f"{label}: {found.ours.median:.1f} ms, {found.ratio.median:.2f} times", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
