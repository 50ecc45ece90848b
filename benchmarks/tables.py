"""The tables of a report: in the training loop first, for that is where an optimizer is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from . import targets
from .bandwidth import Bandwidth
from .cases import Result, Times, threads_text
from .report import FUSED, Report
from .startup import Startup
from .table import Table, three_digits
from .workloads import MODELS, OURS, TORCH_CONTENDERS

RATIO_NOTE = (
    "Median microseconds of {what}, then torch's time divided by ours: above 1, ours is faster. "
    "In brackets the target, ≥ where it is reached and < where it is not."
)
SHARE_NOTE = (
    "Share: of the machine's streaming bandwidth, at the bytes that no step can avoid to move; "
    "it can exceed 100 % where the mix of reads and writes is another than Adam's."
)
AGAINST_TORCH = tuple(f"{name} / {OURS}" for name in TORCH_CONTENDERS)
DISTURBED = 0.05
DISTURBED_TITLE = f"## Disturbed: others had more than {DISTURBED:.0%} of the machine"
NAMED_ENGINES = {
    "fused=False": ("default", "ours, fused=False"),
    "foreach=True": ("foreach", "ours, foreach=True"),
}


def all_tables(report: Report) -> list[Table]:
    loop, alone = report.of("in the loop"), report.of("alone")
    return [
        *_for_each_number_of_threads(loop, _step_in_the_loop),
        *_for_each_number_of_threads(loop, _whole_iteration),
        *_for_each_number_of_threads(loop, _named_engines),
        *_for_each_number_of_threads(alone, lambda results: _step_alone(results, report)),
        *([bandwidth_table(report.bandwidths.values())] if report.bandwidths else []),
        *([startup_table(report.startup)] if report.startup else []),
    ]


def markdown(report: Report) -> str:
    skipped = [f"{label}: {why}" for label, why in report.skipped.items()]
    disturbed = [
        f"{label}: {each.others:.0%}" for label, each in report.results.items() if is_disturbed(each)
    ]
    parts = [
        "# Benchmarks on the CPU",
        report.machine.facts(),
        *([targets_text(report)] if report.results else []),
        *(table.as_markdown() for table in all_tables(report)),
        *(["## Skipped", _bullets(skipped)] if skipped else []),
        *([DISTURBED_TITLE, _bullets(disturbed)] if disturbed else []),
    ]
    return "\n\n".join(parts) + "\n"


def is_disturbed(result: Result) -> bool:
    return result.others is not None and result.others > DISTURBED


def targets_text(report: Report) -> str:
    """How many targets were reached, and which were not."""
    results = report.results.values()
    total = sum(map(targets.count, results))
    missed = [line for result in results for line in targets.missed(result)]
    said = f"Targets reached: {total - len(missed)} of {total}."
    return f"{said} Not reached:\n\n{_bullets(missed)}" if missed else said


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _for_each_number_of_threads(results: list[Result], make: Callable[[list[Result]], Table]) -> list[Table]:
    """One table for each, the largest number first."""
    counts = sorted({result.case.threads for result in results}, reverse=True)
    return [make([result for result in results if result.case.threads == count]) for count in counts]


def _step_in_the_loop(results: list[Result]) -> Table:
    rows = [
        [*_names(each), *_times(each.step), *_ratios(each.step, targets.of_step(each.case), AGAINST_TORCH)]
        for each in results
    ]
    return _table("In the training loop: step()", results, _against_torch(), rows, "a step")


def _whole_iteration(results: list[Result]) -> Table:
    rows = [
        [*_names(each), *_times(times), *_ratios(times, targets.of_iteration(each.case), AGAINST_TORCH)]
        for each in results
        if (times := each.iteration)
    ]
    what = "zero_grad, forward, backward and step together"
    return _table("In the training loop: whole iteration", results, _against_torch(), rows, what)


def _named_engines(results: list[Result]) -> Table:
    """Our engines that can be asked for by name, each beside torch's of that name."""
    headings = [
        heading
        for name, (torchs, _) in NAMED_ENGINES.items()
        for heading in (f"torch {torchs} µs", f"ours {name} µs", "ratio")
    ]
    rows = []
    for each in results:
        cells = []
        for torchs, ours in NAMED_ENGINES.values():
            times, aims = each.step.microseconds, targets.of_step(each.case)
            cells += [three_digits(times[name].median) for name in (torchs, ours)]
            cells += _ratios(each.step, aims, [f"{torchs} / {ours}"])
        rows.append([*_names(each), *cells])
    return _table("In the training loop: step() of the engines by name", results, headings, rows, "a step")


def _step_alone(results: list[Result], report: Report) -> Table:
    rows = [
        [
            *(*_names(each), *_times(each.step)),
            *_ratios(each.step, targets.of_step(each.case), AGAINST_TORCH),
            *_shares(report.shares(each)),
        ]
        for each in results
    ]
    headings = [*_against_torch(), *(f"{name} share" for name in FUSED)]
    table = _table("Alone: step() on fixed gradients", results, headings, rows, "a step")
    return table.with_note(SHARE_NOTE) if any(map(report.shares, results)) else table


def _table(title: str, results: list[Result], headings: list[str], rows: list[list[str]], what: str) -> Table:
    title = f"{title}, {threads_text(results[0].case.threads)}"
    note = RATIO_NOTE.format(what=what)
    return Table(title, ["model", "optimizer", *headings], rows, note).without_empty_columns()


def _against_torch() -> list[str]:
    return [*(f"{name} µs" for name in (*TORCH_CONTENDERS, OURS)), *AGAINST_TORCH]


def _names(result: Result) -> list[str]:
    return [MODELS[result.case.model].title, result.case.optimizer]


def _times(times: Times) -> list[str]:
    """Empty where there is no such contender."""
    found = [times.microseconds.get(name) for name in (*TORCH_CONTENDERS, OURS)]
    return [three_digits(time.median) if time else "" for time in found]


def _ratios(times: Times, aims: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [
        targets.text(times.ratios[name].median, aims.get(name)) if name in times.ratios else ""
        for name in names
    ]


def _shares(shares: Mapping[str, float]) -> list[str]:
    return [f"{shares[name]:.0%}" if name in shares else "" for name in FUSED]


def bandwidth_table(bandwidths: Iterable[Bandwidth]) -> Table:
    return Table(
        "Streaming bandwidth: three float32 streams updated in place, a fourth read",
        ["threads", "GB/s", "by"],
        [[str(limit.threads), f"{limit.gigabytes_per_second:.1f}", limit.how] for limit in bandwidths],
    )


def startup_table(startup: Startup) -> Table:
    return Table(
        "Start of a process",
        ["what", "median s", "to torch's"],
        [
            ["process that only imports torch", f"{startup.import_torch.median:.3f}", ""],
            [
                "process that only imports torchopt_course",
                f"{startup.import_ours.median:.3f}",
                f"{startup.ratio.median:.3f}",
            ],
            ["first step() ever (compiles)", f"{startup.first_step_ever.median:.3f}", ""],
            ["first step() of the next process", f"{startup.first_step_cached.median:.3f}", ""],
        ],
        "First steps: Adam on LeNet, without imports and construction.",
    )
