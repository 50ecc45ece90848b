"""The files that a run leaves, and the processes that it starts. No figure is ever judged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cases, startup
from benchmarks.__main__ import main
from benchmarks.bandwidth import Bandwidth
from benchmarks.cases import Case, NotEnoughMemoryError, step_alone
from benchmarks.machine import Machine
from benchmarks.report import Report
from benchmarks.startup import Startup, measure_startup
from benchmarks.tables import markdown
from benchmarks.timing import Pace, Spread
from benchmarks.workloads import MODELS, OPTIMIZERS


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)


def _case(optimizer: str, model: str, threads: int, **times: float) -> Case:
    return Case(
        optimizer=optimizer,
        model=model,
        threads=threads,
        tensors=10,
        elements=1_000_000,
        bytes_per_element=OPTIMIZERS[optimizer].bytes_per_element,
        rounds=3,
        times={name: _exactly(value) for name, value in times.items()},
        ratios={name: _exactly(value / times["ours"]) for name, value in times.items() if name != "ours"},
    )


@pytest.fixture
def report() -> Report:
    return Report(
        Machine("A processor", 2, 2, "Linux x86_64", "2030-01-01T00:00+00:00", {"torch": "9"}, 0.1),
        {"quick": False},
        steps=[
            _case("Adam", "resnet18", 2, default=9000, foreach=8000, fused=2000, ours=1000),
            _case("RMSprop", "resnet18", 2, default=3000, foreach=4000, ours=1000),
            _case("Adam", "lenet", 2, default=300, foreach=200, fused=90, ours=100),
            _case("Adam", "lenet", 1, default=310, foreach=210, fused=90, ours=30),
        ],
        iterations=[_case("Adam", "mlp", 2, default=900, fused=700, ours=650)],
        bandwidths=[Bandwidth(2, {"a loop": 40.0, "torch": 30.0})],
        startup=Startup(_exactly(2), _exactly(2.2), _exactly(1.1), _exactly(2.5), _exactly(0.1)),
        skipped=["step alone, GPT-2 small: no memory"],
    )


def _row(text: str, *starts: str) -> list[str]:
    """The cells of the first row of a markdown table that starts with these."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    return next(row for row in rows if tuple(row[: len(starts)]) == starts)


def test_markdown(report: Report) -> None:
    text = markdown(report)
    assert "A processor, 2 cores" in text
    assert "torch 9" in text
    assert _row(text, "ResNet-18", "Adam") == [
        *("ResNet-18", "Adam"),
        *("9,000", "8,000", "2,000", "1,000"),
        *("9.00", "8.00", "2.00"),
        *("35%", "70%"),  # 28 MB in 2 ms and in 1 ms are 14 and 28 of 40 GB/s
    ]
    assert _row(text, "ResNet-18", "RMSprop")[4:] == ["", "1,000", "3.00", "4.00", "", "", "50%"]
    assert _row(text, "LeNet", "Adam")[-2:] == ["", ""]  # its tensors stay in the cache
    assert _row(text, "MLP 784-256-10", "Adam")[2:] == ["900", "700", "650", "1.38", "1.08"]
    assert _row(text, "2", "40.0") == ["2", "40.0", "a loop"]
    assert _row(text, "process that only imports torchopt_course")[1:] == ["2.200", "1.100"]
    assert "- step alone, GPT-2 small: no memory" in text
    assert text.endswith("## CUDA: not measured\n")
    widths = {len(line) for line in text.split("\n## ")[1].splitlines() if line.startswith("|")}
    assert len(widths) == 1, "a table is not aligned"


def test_json(report: Report, tmp_path: Path) -> None:
    json_file, markdown_file, picture = report.write(tmp_path / "new")
    content = json.loads(json_file.read_text())
    assert content["step"][0]["shares"] == pytest.approx({"fused": 0.35, "ours": 0.7})
    assert content["step"][2]["shares"] == {}
    assert content["step"][0]["ratios"]["fused"] == {"median": 2, "lower": 2, "upper": 2}
    assert content["bandwidth"][0]["gigabytes_per_second"] == 40
    assert content["startup"]["ratio"]["median"] == 1.1
    assert content["cuda"] == "not measured"
    assert markdown_file.read_text() == markdown(report)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_an_empty_report_is_written_without_a_picture(report: Report, tmp_path: Path) -> None:
    paths = Report(report.machine, {}).write(tmp_path)
    assert [path.name for path in paths] == ["cpu.json", "cpu.md"]


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _numbers(item)
    elif isinstance(content, int | float):
        yield content


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real run, as small as can be."""
    threads = torch.get_num_threads()
    chosen = "--quick --only step iteration --models lenet --optimizers Adam RMSprop --threads 1"
    main([*chosen.split(), "--seconds", "0.01", "--out", str(tmp_path)])
    assert torch.get_num_threads() == threads
    content = json.loads((tmp_path / "cpu.json").read_text())
    assert all(math.isfinite(number) for number in _numbers(content))
    step, iteration = content["step"], content["iteration"]
    assert [(case["optimizer"], list(case["times"])) for case in step] == [
        ("Adam", ["default", "foreach", "fused", "ours"]),
        ("RMSprop", ["default", "foreach", "ours"]),
    ]
    assert [(case["optimizer"], list(case["times"])) for case in iteration] == [
        ("Adam", ["default", "fused", "ours"]),
        ("RMSprop", ["default", "ours"]),
    ]
    for case in step + iteration:
        assert list(case["ratios"]) == [name for name in case["times"] if name != "ours"]
        assert case["rounds"] >= 3
        assert all(0 < time["lower"] <= time["median"] <= time["upper"] for time in case["times"].values())
    assert (tmp_path / "cpu.md").read_text().count("| LeNet | Adam ") == 2
    assert (tmp_path / "cpu.png").stat().st_size > 10_000
    output = capsys.readouterr()
    assert "Step alone, 1 thread" in output.out
    assert "CUDA: not measured" in output.out
    assert "[2/2] iteration, LeNet, RMSprop" in output.err


def test_what_does_not_fit_into_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "free_bytes", lambda: 1_000_000)
    with pytest.raises(NotEnoughMemoryError, match=r"needs 10\.0 GB of memory, 0\.0 are free"):
        step_alone(OPTIMIZERS["Adam"], MODELS["gpt2"], 1, Pace(0, 1))


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
