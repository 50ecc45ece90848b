"""The record of the ways of storing, its tables, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from benchmarks import storage
from benchmarks.machine import Machine
from benchmarks.storage import Report, label_of
from benchmarks.storage_case import FULL, Found
from benchmarks.timing import Spread

MACHINE = Machine("A processor", 2, 2, "Linux", "2030-01-01", {"torch": "9"}, 0.1)


def _found(way: str, peer: str, model: str, threads: int, ours: float, ratio: float) -> Found:
    one, other, by = (Spread(value, value, value) for value in (ours, ours * ratio, ratio))
    return Found(way, peer, model, threads, 4.0, one, other, by)


def _report() -> Report:
    found = [
        _found("states bfloat16", FULL, "gpt2", 2, 50.0, 1.31),
        _found("float32", "DeepSpeed CPUAdam", "gpt2-medium", 2, 200.0, 1.123),
        _found("float32", "torch default", "gpt2-medium", 2, 201.0, 4.5),
    ]
    labels = [label_of(each.way, each.peer, each.model) for each in found]
    return Report(MACHINE, dict(zip(labels, found, strict=True)), {}, {"wait, float32": 1234.5})


def test_tables_have_what_was_measured() -> None:
    ways, offloaded, memory = storage.tables(_report())
    assert ways.rows == [["states bfloat16", "4.00", "50.0", "65.5", "1.31"]]
    assert offloaded.rows == [["GPT-2 medium, float32", "201", "4.50", "", "1.12"]]
    assert memory.rows == [["wait, float32", "1,234"]]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "storage.json").write_text(_report().as_json())
    assert storage.read(tmp_path / "storage.json") == _report()


def test_every_case_has_a_label_of_its_own_and_can_be_asked_for() -> None:
    cases = storage.all_cases()
    assert len(cases) == len(set(cases.values()))
    asked = [label for label in cases if storage.is_asked_for(label, ["medium DeepSpeed"])]
    assert len(asked) == len(storage.OFFLOADED)


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(storage.PAGE.read_text())
    storage.write_page(copy)
    assert copy.read_text() == storage.PAGE.read_text(), "run python -m benchmarks.readme"
    report = storage.read(storage.RESULTS / "storage.json")
    assert (storage.RESULTS / "storage.md").read_text() == storage.markdown(report)
