"""``python -m benchmarks.readme``: the README's figures, from ``cpu.json``, ``peers.json`` and ``cuda.json``.

They stand between two marks; what is between them is replaced, and nothing else. Those of
``docs/low_precision.md`` are written too, of which ``cuda.json`` has a part, and ``cuda.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import peers, report, storage, targets
from .cases import Result, Times, threads_text
from .cuda import record as on_gpu
from .cuda.blocks import Times as TimesOnGpu
from .cuda.pages import HOST, TORCHS, WHOLE, engines_of, markdown
from .cuda.record import Record, Row
from .cuda.steps import ALONE, GRAPH, IN_THE_LOOP
from .marks import Marks
from .peer import PEERS, Measured
from .peers import PeersReport
from .report import Report
from .workloads import MODELS

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).parent / "results"
NOTHING = "Nothing has been measured yet since the engines were last changed."
NO_GPU = (
    "On CUDA nothing has been measured yet: the kernels are tested by Triton's interpreter and compiled for "
    "an H100, both without a GPU; `python -m benchmarks.cuda` measures."
)
MARKS = Marks("<!-- speed: written by python -m benchmarks.readme -->", "<!-- end of speed -->")


def section(measured: Report, beside: PeersReport | None, gpu: Record | None) -> str:
    """What stands between the marks: what a user's loop gets, then where to find the rest."""
    machine = measured.machine
    parts = [
        "How many times longer `torch.optim` takes **inside a training loop** (zero_grad, forward, backward, "
        "step), default / `fused=True` (RMSprop: `foreach=True`, for torch has no fused one), on "
        f"{machine.title}, torch {machine.versions['torch']}; above 1, ours is faster:",
        _in_the_loop(measured.of("in the loop")),
        f"{_targets(measured)} [All tables](benchmarks/results/cpu.md) have `step()` alone too, the share of "
        "the machine's memory bandwidth, import time and the first step.",
        *([_beside(beside)] if beside and beside.measured else []),
        "![Time of one step, torch's against ours](benchmarks/results/cpu.png)",
        gpu_section(gpu),
    ]
    return "\n\n".join(parts)


def _in_the_loop(results: list[Result]) -> str:
    """A line for each case, columns for the step and the whole iteration, each number of threads apart."""
    threads = sorted({result.case.threads for result in results})
    headings = [
        "",
        *(f"step(), {threads_text(count)}" for count in threads),
        *(f"whole iteration, {threads_text(count)}" for count in threads),
    ]
    by_case = {(r.case.model, r.case.optimizer, r.case.threads): r for r in results}
    rows = []
    for model, optimizer in dict.fromkeys((r.case.model, r.case.optimizer) for r in results):
        found = [by_case.get((model, optimizer, count)) for count in threads]
        cells = [_two(result.step if result else None) for result in found]
        cells += [_two(result.iteration if result else None) for result in found]
        rows.append([f"{optimizer}, {MODELS[model].title}", *cells])
    return _table(headings, rows)


def gpu_section(measured: Record | None) -> str:
    """What was measured on a GPU, or that nothing was."""
    rows = measured.of(IN_THE_LOOP) if measured else []
    if measured is None or not rows:
        return NO_GPU
    headings = ["", "step(), on the host", "whole iteration"]
    cells = [
        [f"{row.what}, {row.model}", _of_gpu(row.ratios, HOST), _of_gpu(row.ratios, WHOLE)] for row in rows
    ]
    others = sorted({engines_of(row) for row in rows} - {"fused CUDA engine"})
    return "\n\n".join(
        [
            f"<details><summary>The same on {measured.device}, torch {measured.versions['torch']}: "
            f"step() on the host {_range(rows, HOST)}, whole iteration {_range(rows, WHOLE)}</summary>",
            "The host runs ahead of the device, and torch's default there is `foreach`:",
            _table(headings, cells),
            *_of_the_device(measured),
            *([f"In some rows a part of our step was taken by {', '.join(others)}."] if others else []),
            "[All tables](benchmarks/results/cuda.md) have `step()` alone and in a CUDA graph, ways of "
            "storing, rules with norms and the first step; `python -m benchmarks.cuda` measures.",
            "</details>",
        ]
    )


def _range(rows: list[Row], part: int) -> str:
    ratios = [row.ratios[name][part].median for row in rows for name in TORCHS if name in row.ratios]
    return f"{_short(min(ratios))} to {_short(max(ratios))}"


def _of_the_device(measured: Record) -> list[str]:
    """Adam's step without a training around it: how much longer torch's fused takes, on which models."""
    found = []
    for part, words in ((ALONE, "alone"), (GRAPH, "captured in a CUDA graph")):
        rows = [row for row in measured.of(part) if row.what == "Adam" and "fused" in row.ratios]
        if not rows:
            return []
        ratios = {row.model: row.ratios["fused"][WHOLE].median for row in rows}
        least, most = (choose(ratios, key=lambda model: ratios[model]) for choose in (min, max))
        found.append(f"{words} {_short(ratios[least])} ({least}) to {_short(ratios[most])} ({most}) times")
    return [f"Without a training around it, torch's fused Adam takes {' and '.join(found)} as long as ours."]


def _of_gpu(ratios: Mapping[str, TimesOnGpu], part: int) -> str:
    """Torch's default and fused (RMSprop has none) by ours."""
    found = [ratios[name][part].median for name in TORCHS if name in ratios]
    return " / ".join(map(_short, found))


def _beside(beside: PeersReport) -> str:
    """Other packages' AdamW. Who computes something else is left to ``peers.md``, which says so."""
    found = [each for each in beside.measured.values() if each.difference < peers.SAME]
    names = [name for name in PEERS if any(each.peer == name for each in found)]
    least, most = (choose(found, key=lambda each: each.ratio.median) for choose in (min, max))
    models = len({each.model for each in found})
    return (
        f"AdamW alone, {threads_text(found[0].threads)}, beside {', '.join(names)} on {models} models: "
        f"theirs take from {_of_peer(least)} to {_of_peer(most)} times as long "
        "([each of them](benchmarks/results/peers.md))."
    )


def _of_peer(found: Measured) -> str:
    return f"{_short(found.ratio.median)} ({found.peer}, {MODELS[found.model].title})"


def _two(times: Times | None) -> str:
    """Torch's default and fused (without one, foreach) by ours."""
    if times is None:
        return ""
    best = targets.AGAINST_FUSED if targets.AGAINST_FUSED in times.ratios else targets.AGAINST_FOREACH
    return " / ".join(_short(times.ratios[name].median) for name in (targets.AGAINST_DEFAULT, best))


def _short(ratio: float | None) -> str:
    return (
        ""
        if ratio is None
        else f"{ratio:.2f}"
        if ratio < 2
        else f"{ratio:.1f}"
        if ratio < 10
        else f"{ratio:.0f}"
    )


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _targets(measured: Report) -> str:
    results = measured.results.values()
    total, missed = sum(map(targets.count, results)), sum(len(targets.missed(each)) for each in results)
    return f"{total - missed} of {total} targets ([what was aimed at](benchmarks/targets.py)) reached."


def main() -> None:
    write()
    storage.write_page()
    if (gpu := RESULTS / "cuda.json").exists():
        (RESULTS / "cuda.md").write_text(markdown(on_gpu.read(gpu)), encoding="utf-8")


def write(readme: Path = README, results: Path = RESULTS) -> None:
    readme.write_text(MARKS.rewritten(readme.read_text(encoding="utf-8"), written(results)), encoding="utf-8")


def written(results: Path) -> str:
    """The section of the records in this folder, or that there is none."""
    record, beside, gpu = (results / f"{name}.json" for name in ("cpu", "peers", "cuda"))
    if not record.exists():
        return NOTHING
    return section(
        report.read(record),
        peers.read(beside) if beside.exists() else None,
        on_gpu.read(gpu) if gpu.exists() else None,
    )


if __name__ == "__main__":
    main()
