"""The files that a run leaves, and the processes that it starts. No figure is ever judged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cases, startup
from benchmarks.__main__ import main
from benchmarks.bandwidth import Bandwidth
from benchmarks.cases import Case, NotEnoughMemoryError, Result, Times, measure
from benchmarks.machine import Machine
from benchmarks.plan import all_cases, is_asked_for
from benchmarks.report import Report, read
from benchmarks.startup import Startup, measure_startup
from benchmarks.tables import markdown, targets_text
from benchmarks.targets import missed, of_iteration, of_step
from benchmarks.timing import Pace, Spread
from benchmarks.workloads import OPTIMIZERS


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)


def _times(**microseconds: float) -> Times:
    named = {"foreach=True": "ours, foreach=True", "fused=False": "ours, fused=False"}
    times = {named.get(name, name): _exactly(value) for name, value in microseconds.items()}
    return Times(
        times,
        {
            f"{above} / {below}": _exactly(times[above].median / times[below].median)
            for above, below in cases.PAIRS
            if above in times and below in times
        },
    )


def _result(case: Case, step: Times, iteration: Times | None = None) -> Result:
    return Result(
        case=case,
        date="2030-01-01",
        tensors=10,
        elements=1_000_000,
        bytes_per_element=OPTIMIZERS[case.optimizer].bytes_per_element,
        rounds=3,
        step=step,
        iteration=iteration,
    )


def _of_engines(**microseconds: float) -> Times:
    return _times(**microseconds, **{"foreach=True": 250.0, "fused=False": 300.0})


RESULTS = (
    _result(
        Case("in the loop", "Adam", "mlp", 2),
        _of_engines(default=320, foreach=200, fused=218, ours=200),
        _times(default=900, foreach=800, fused=643.5, ours=650),
    ),
    _result(Case("alone", "Adam", "resnet18", 2), _times(default=9000, foreach=8000, fused=2000, ours=1000)),
    _result(Case("alone", "RMSprop", "resnet18", 2), _times(default=3000, foreach=4000, ours=1000)),
    _result(Case("alone", "Adam", "lenet", 2), _times(default=300, foreach=200, fused=90, ours=100)),
    _result(Case("alone", "Adam", "lenet", 1), _times(default=310, foreach=210, fused=90, ours=30)),
)


@pytest.fixture
def report() -> Report:
    return Report(
        Machine("A processor", 2, 2, "Linux x86_64", "2030-01-01T00:00+00:00", {"torch": "9"}, 0.1),
        results={result.case.label: result for result in RESULTS},
        bandwidths={2: Bandwidth(2, {"a loop": 40.0, "torch": 30.0})},
        startup=Startup(_exactly(2), _exactly(2.2), _exactly(1.1), _exactly(2.5), _exactly(0.1)),
        skipped={"alone: Adam, GPT-2 small, 2 threads": "no memory"},
    )


def _row(text: str, title: str, *starts: str) -> list[str]:
    """The cells of the first row that starts with these, of the table under this title."""
    _, _, text = text.partition(f"## {title}")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    return next(row for row in rows if tuple(row[: len(starts)]) == starts)


def test_tables_of_the_loop_come_first_and_say_what_was_aimed_at(report: Report) -> None:
    text = markdown(report)
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[:3] == [
        "## In the training loop: step(), 2 threads",
        "## In the training loop: whole iteration, 2 threads",
        "## In the training loop: step() of the engines by name, 2 threads",
    ]
    mlp = "MLP 784-256-10", "Adam"
    assert _row(text, "In the training loop: step()", *mlp)[2:] == [
        *("320", "200", "218", "200"),
        *("1.60 (≥ 1.60)", "1.00", "1.09 (< 1.10)"),
    ]
    assert _row(text, "In the training loop: whole", *mlp)[-1] == "0.99 (≥ 0.99)"
    assert _row(text, "In the training loop: step() of the engines", *mlp)[2:] == [
        *("320", "300", "1.07 (≥ 0.83)"),
        *("200", "250", "0.80 (< 1.00)"),
    ]


def test_markdown(report: Report) -> None:
    text = markdown(report)
    assert "A processor, 2 cores" in text
    assert "torch 9" in text
    assert _row(text, "Alone", "ResNet-18", "Adam") == [
        *("ResNet-18", "Adam"),
        *("9,000", "8,000", "2,000", "1,000"),
        *("9.00", "8.00", "2.00"),
        *("35%", "70%"),  # 28 MB in 2 ms and in 1 ms are 14 and 28 of 40 GB/s
    ]
    assert _row(text, "Alone", "ResNet-18", "RMSprop")[4:] == ["", "1,000", "3.00", "4.00", "", "", "50%"]
    assert _row(text, "Alone", "LeNet", "Adam")[-2:] == ["", ""]  # its tensors stay in the cache
    assert _row(text, "Streaming", "2", "40.0") == ["2", "40.0", "a loop"]
    assert _row(text, "Start", "process that only imports torchopt_course")[1:] == ["2.200", "1.100"]
    assert "- alone: Adam, GPT-2 small, 2 threads: no memory" in text
    widths = {len(line) for line in text.split("\n## ")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1, "a table is not aligned"


def test_targets_that_were_missed_are_named(report: Report) -> None:
    in_the_loop, *alone = RESULTS
    assert missed(in_the_loop) == [
        "in the loop: Adam, MLP 784-256-10, 2 threads: step fused / ours 1.09, not 1.10",
        "in the loop: Adam, MLP 784-256-10, 2 threads: step foreach / ours, foreach=True 0.80, not 1.00",
    ]
    assert not any(map(missed, alone))  # no target is set for these
    assert targets_text(report).startswith("Targets reached: 3 of 5. Not reached:\n\n- in the loop")


def test_every_case_in_the_loop_has_a_target_for_each_number_of_threads() -> None:
    for case in all_cases([1, 2]):
        if case.where == "in the loop":
            against_torch = {name for name in of_step(case) if name.endswith("/ ours")}
            assert len(against_torch) == 2, case.label
            assert list(of_iteration(case).values()) == [0.99]
    one, two = (of_step(Case("in the loop", "Adam", "mlp", count))["fused / ours"] for count in (1, 2))
    assert (one, two) == (1.3, 1.1)
    assert of_step(Case("alone", "Adam", "many", 2)) == {"fused / ours": 5, "default / ours": 20}


def test_disturbed_cases_are_named(report: Report) -> None:
    assert "Disturbed" not in markdown(report)
    label = RESULTS[0].case.label
    report.results[label] = replace(RESULTS[0], others=0.31)
    assert f"## Disturbed: others had more than 5% of the machine\n\n- {label}: 31%" in markdown(report)


def test_a_report_is_read_back_as_it_was(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "cpu.json")
    assert read(tmp_path / "cpu.json") == report


@pytest.mark.parametrize(
    ("patterns", "number"),
    [
        ([], 56),
        (["LeNet Adam"], 4),
        (["loop"], 16),
        (["loop LeNet Adam 2 threads"], 1),
        (["adam mlp loop 1", "wide loop 2"], 3),
        (["LeNet Ada"], 6),  # Adagrad is measured alone only, Adam in the loop too
        (["1000 x 64 1 thread"], 5),
        (["et Adam"], 0),  # no beginning of a word
        (["nothing"], 0),
    ],
)
def test_words_choose_cases(patterns: list[str], number: int) -> None:
    labels = [case.label for case in all_cases([1, 2])]
    assert len(set(labels)) == len(labels)
    assert sum(is_asked_for(label, patterns) for label in labels) == number


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _numbers(item)
    elif isinstance(content, int | float):
        yield content


def _run(folder: Path, *only: str) -> None:
    main(["--quick", "--seconds", "0.01", "--out", str(folder), "--threads", "1", "--only", *only])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real runs, as small as can be. The second keeps what the first one measured."""
    threads = torch.get_num_threads()
    _run(tmp_path, "loop LeNet Adam")
    _run(tmp_path, "alone LeNet Adam", "alone LeNet RMSprop")
    assert torch.get_num_threads() == threads
    assert all(math.isfinite(number) for number in _numbers(json.loads((tmp_path / "cpu.json").read_text())))
    report = read(tmp_path / "cpu.json")
    assert {label: list(result.step.microseconds) for label, result in report.results.items()} == {
        "in the loop: Adam, LeNet, 1 thread": [
            *("default", "foreach", "fused", "ours"),
            *("ours, foreach=True", "ours, fused=False"),
        ],
        "alone: Adam, LeNet, 1 thread": ["default", "foreach", "fused", "ours"],
        "alone: RMSprop, LeNet, 1 thread": ["default", "foreach", "ours"],
    }
    for result in report.results.values():
        assert result.rounds >= 3
        for times in (result.step, *([result.iteration] if result.iteration else [])):
            assert all(0 < t.lower <= t.median <= t.upper for t in times.microseconds.values())
    [looped, *_] = report.results.values()
    assert looped.iteration is not None
    for name, step in looped.step.microseconds.items():
        assert step.median < looped.iteration.microseconds[name].median, "a step is a part of an iteration"
    assert (tmp_path / "cpu.png").stat().st_size > 10_000
    output = capsys.readouterr()
    assert "In the training loop: step(), 1 thread" in output.out
    assert "[2/2] alone: Adam, LeNet" in output.err


def test_rows_of_another_machine_are_not_kept(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.write(tmp_path / "cpu.json")
    _run(tmp_path, "alone LeNet SGD")
    assert list(read(tmp_path / "cpu.json").results) == ["alone: SGD, LeNet, 1 thread"]
    assert "is of another machine" in capsys.readouterr().err


def test_words_that_mean_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "LeNet Lion"])
    assert "in the loop: Adam, LeNet, 1 thread" in capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "free_bytes", lambda: 1_000_000)
    with pytest.raises(NotEnoughMemoryError, match=r"needs 3\.0 GB of memory, 0\.0 are free"):
        measure(Case("alone", "Adam", "gpt2", 1), Pace(0, 1))


def test_imports_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([99.0, 99.0, 1.0, 1.5, 2.0, 2.0, 4.0, 5.0])  # the first of each is not counted
    order: list[str] = []

    def fake_import(package: str) -> float:
        order.append(package)
        return next(seconds)

    monkeypatch.setattr(startup, "_import_seconds", fake_import)
    monkeypatch.setattr(startup, "_first_step_seconds", lambda: (3.0, 0.1))
    result = measure_startup(imports=3, first_steps=2)
    assert order == ["torch", "torchopt_course"] * 4
    assert result.import_torch == Spread(2, 1.5, 3)
    assert result.ratio == Spread(1.25, 1.125, 1.375)  # of 1.5, 1 and 1.25
    assert result.first_step_ever == _exactly(3)
    assert result.first_step_cached == _exactly(0.1)


@pytest.mark.slow
@pytest.mark.processes
def test_first_steps_happen_in_fresh_processes() -> None:
    ever, cached = startup._first_step_seconds()
    assert ever > 0
    assert cached > 0
