"""Pages that are written from what a run on a GPU has measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks import readme, storage
from benchmarks.cuda.others import STORING
from benchmarks.cuda.pages import markdown
from benchmarks.cuda.record import Record, Row, read

from .test_cuda import _looped, _times


def _stored(way: str, engine: str) -> Row:
    row = Row(STORING, "GPT-2 small", way, engine=engine, numbers={"bytes of states": 4.0})
    row.times = {"ours": _times(50, 1234), "fused": _times(60, 2468)}
    row.ratios = {"fused": _times(1.2, 2.0)}
    return row


def _record() -> Record:
    rows = [
        _looped("Adam", "LeNet", default=4.0, fused=1.5),
        _looped("RMSprop", "ResNet-18", default=3.0),
        _stored("states bfloat16", "fused CUDA engine: 148 parameters"),
        _stored("states 8 bits", "eager: 50 parameters, because ...\nfused CUDA engine: 98 parameters"),
        Row("alone", "LeNet", "Adagrad", notes=["torch's fused does not run: no"]),
    ]
    rows[-1].times = {"ours": _times(50, 60)}
    return Record(
        "A GPU",
        "2030-01-01",
        {"torch": "9"},
        {"copy GB/s": 3000.0},
        {f"{row.part}: {row.what}, {row.model}": row for row in rows},
        {"in a CUDA graph: Adam, LeNet": "RuntimeError: no"},
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    _record().write(tmp_path / "cuda.json")
    assert read(tmp_path / "cuda.json") == _record()


def _cells(text: str, title: str, first: str) -> list[str]:
    lines = text.partition(f"## {title}")[2].splitlines()
    line = next(line for line in lines if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_loop_comes_first() -> None:
    text = markdown(_record())
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[0] == "## In the training loop: whole iteration"
    assert _cells(text, "In the training loop: whole", "LeNet") == [
        *("LeNet", "Adam", "4,000", "1,500", "1,000", "1.40", "1.15", "1.15 to 1.15"),
    ]
    assert _cells(text, "In the training loop: step()", "ResNet-18") == [
        *("ResNet-18", "RMSprop", "150", "", "50.0", "3.00", "", "3.00 to 3.00"),
    ]
    assert "- alone: Adagrad, LeNet: torch's fused does not run: no" in text
    assert "- in a CUDA graph: Adam, LeNet: RuntimeError: no" in text


def test_readme_shows_the_loop_on_a_gpu() -> None:
    text = readme.gpu_section(_record())
    assert "A GPU, torch 9: step() on the host 1.50 to 4.0, whole iteration 1.15 to 1.40" in text
    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| Adam, LeNet | 4.0 / 1.50 | 1.40 / 1.15 |",
        "| RMSprop, ResNet-18 | 3.0 | 1.30 |",
    ]
    assert "taken by" not in text
    assert "Without a training" not in text
    more = _record()
    for part, model, ratio in (("alone", "a", 1.5), ("alone", "b", 2.5), ("in a CUDA graph", "a", 3.5)):
        row = more.rows[f"{part} {model}"] = _looped("Adam", model, fused=ratio)
        row.part = part
    assert "takes alone 1.15 (a) to 1.25 (b) times and captured in a CUDA graph" in readme.gpu_section(more)
    slow = _record()
    slow.rows["x"] = _looped(
        "SGD", "LeNet", engine="foreach: 10 parameters, because no compiler", default=1.0
    )
    assert "a part of our step was taken by foreach" in readme.gpu_section(slow)
    for nothing in (None, Record("A GPU", "2030", {"torch": "9"})):
        assert readme.gpu_section(nothing) == readme.NO_GPU


def test_ways_of_storing_have_a_column_of_the_gpu() -> None:
    report = storage.read(storage.RESULTS / "storage.json")
    text = storage.section(report, _record())
    title = "Adam's step on GPT-2 small"
    assert _cells(text, title, "states bfloat16 ")[-2:] == ["1.23", "2.00"]
    assert _cells(text, title, "states 8 bits ")[-2:] == ["1.23 (eager, fused CUDA engine)", "2.00"]
    assert _cells(text, title, "all bfloat16 ")[-2:] == ["", ""]
    assert "The GPU: A GPU, torch 9." in text
    assert "GPU" not in storage.section(report, None)
