"""The README's figures are those of the records, and no figure is written by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks import readme
from benchmarks.cases import Case, Result, Times
from benchmarks.machine import Machine
from benchmarks.peer import Measured
from benchmarks.peers import PeersReport
from benchmarks.report import Report
from benchmarks.timing import Spread

MACHINE = Machine("A processor", 2, 2, "Linux", "2030-01-01", {"torch": "9"}, 0.1)


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)


def _ratios(**ratios: float) -> Times:
    return Times({}, {f"{name} / ours": _exactly(value) for name, value in ratios.items()})


def _report(*results: Result) -> Report:
    return Report(MACHINE, {result.case.label: result for result in results})


def _result(case: Case, step: Times, iteration: Times | None = None) -> Result:
    return Result(case, "2030-01-01", 10, 1000, 12, 3, step, iteration)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


def test_the_table_is_of_the_loop() -> None:
    engines = Times(
        {}, {"foreach / ours, foreach=True": _exactly(1), "default / ours, fused=False": _exactly(1)}
    )

    def in_the_loop(optimizer: str, threads: int, **ratios: float) -> Result:
        step = Times({}, {**_ratios(**ratios).ratios, **engines.ratios})
        iteration = _ratios(default=1.2, foreach=1.1, **({"fused": 0.987} if "fused" in ratios else {}))
        return _result(Case("in the loop", optimizer, "resnet18", threads), step, iteration)

    text = readme.section(
        _report(
            in_the_loop("Adam", 2, default=12.4, foreach=3, fused=1.05),
            in_the_loop("Adam", 1, default=2.46, foreach=3, fused=1.149),
            in_the_loop("RMSprop", 2, default=3.1, foreach=4.2),
            _result(Case("alone", "Adam", "lenet", 1), _ratios(default=9.9, foreach=9.9, fused=9.9)),
        ),
        None,
        None,
    )
    assert _lines(text) == [
        "|  | step(), 1 thread | step(), 2 threads "
        "| whole iteration, 1 thread | whole iteration, 2 threads |",
        "| --- | --- | --- | --- | --- |",
        "| Adam, ResNet-18 | 2.5 / 1.15 | 12 / 1.05 | 1.20 / 0.99 | 1.20 / 0.99 |",
        "| RMSprop, ResNet-18 |  | 3.1 / 4.2 |  | 1.20 / 1.10 |",
    ]
    assert "A processor, 2 cores, torch 9" in text


def test_only_peers_that_compute_the_same_are_compared() -> None:
    def measured(peer: str, model: str, ratio: float, difference: float) -> Measured:
        time = _exactly(100)
        return Measured(peer, model, 2, "2030", "1", time, time, _exactly(ratio), 1.0, difference)

    found = [
        measured("heavyball", "mlp", 3, 0.1),
        measured("DeepSpeed CPUAdam", "mlp", 0.9, 1e-7),
        measured("optimi", "mlp", 25, 1e-7),
        measured("optimi", "gpt2", 2, 1e-7),
    ]
    beside = PeersReport(MACHINE, {f"{each.model} {each.peer}": each for each in found})
    text = readme._beside(beside)
    assert "beside DeepSpeed CPUAdam, optimi on 2 models" in text
    assert "from 0.90 (DeepSpeed CPUAdam, MLP 784-256-10) to 25 (optimi, MLP 784-256-10) times" in text


def test_readme_says_what_was_measured(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(readme.README.read_text())
    readme.write(copy)
    assert copy.read_text() == readme.README.read_text(), "run python -m benchmarks.readme"


def test_records_are_read_where_they_are(tmp_path: Path) -> None:
    assert readme.written(tmp_path) == readme.NOTHING
    engines = {"foreach / ours, foreach=True": _exactly(1), "default / ours, fused=False": _exactly(1)}
    step = Times({}, {**_ratios(default=2.5, foreach=2, fused=1.3).ratios, **engines})
    looped = _result(Case("in the loop", "Adam", "mlp", 2), step, _ratios(default=1.5, fused=0.5))
    _report(looped).write(tmp_path / "cpu.json")
    assert "| Adam, MLP 784-256-10 | 2.5 / 1.30 | 1.50 / 0.50 |" in readme.written(tmp_path)
    assert "4 of 5 targets" in readme.written(tmp_path)
