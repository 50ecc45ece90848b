"""The run on a GPU, tried without one: what it times, what it keeps when a case fails, what its pages say."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import readme, storage
from benchmarks.cuda import __main__ as command
from benchmarks.cuda import blocks, steps
from benchmarks.cuda.blocks import PROBES, Sample, Times, in_turns, ratios_of, times_of
from benchmarks.cuda.models import ALONE
from benchmarks.cuda.others import STORING, storing, whole_tensors
from benchmarks.cuda.pages import markdown
from benchmarks.cuda.plan import all_cases
from benchmarks.cuda.record import Record, Row, read
from benchmarks.plan import is_asked_for
from benchmarks.storage_case import WAYS
from benchmarks.timing import Pace, Spread
from benchmarks.workloads import OPTIMIZERS, OptimizerCase, elements

CPU = torch.device("cpu")


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)


def _times(host: float, whole: float) -> Times:
    return Times(_exactly(host), _exactly(whole))


def _looped(what: str, model: str, engine: str = "fused CUDA engine: 10 parameters", **ratios: float) -> Row:
    row = Row("in the loop", model, what, engine=engine)
    row.times = {"ours": _times(50, 1000)} | {n: _times(50 * r, 1000 * r) for n, r in ratios.items()}
    row.ratios = {name: _times(ratio, 1 + ratio / 10) for name, ratio in ratios.items()}
    return row


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


# -- timing ----------------------------------------------------------------------------------------------


def test_the_host_is_timed_with_an_idle_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(blocks, "wait", lambda device: calls.append("wait"))
    block = blocks.block_of(CPU, lambda: calls.append("step"), lambda: calls.append("backward"))
    sample = block(4)
    assert calls == [
        *(["backward", "wait", "step"] * PROBES),
        *("wait", *(["backward", "step"] * 4), "wait"),
    ]
    assert sample.host > 0
    assert sample.whole > 0


def test_contenders_take_turns_in_blocks() -> None:
    calls: list[tuple[str, int]] = []

    def block(name: str, nanoseconds: float) -> Callable[[int], Sample]:
        def take(count: int) -> Sample:
            calls.append((name, count))
            return Sample(10, nanoseconds)

        return take

    found = in_turns({"a": block("a", 1e6), "b": block("b", 1e9)}, Pace(0, 3, turn_seconds=0.01), 5, 20)
    assert calls[4:] == [("a", 10), ("b", 5), ("b", 5), ("a", 10), ("a", 10), ("b", 5)]
    assert {name: len(samples) for name, samples in found.items()} == {"a": 3, "b": 3}


def test_ratios_are_formed_within_rounds() -> None:
    samples = {
        "ours": [Sample(1000, 2000), Sample(1000, 1000), Sample(1000, 4000)],
        "default": [Sample(3000, 2000), Sample(3000, 3000), Sample(4000, 8000)],
    }
    assert times_of(samples)["ours"].whole.median == 2
    ratios = ratios_of(samples, "ours")
    assert list(ratios) == ["default"]
    assert (ratios["default"].host.median, ratios["default"].whole.median) == (3, 2)


def test_contenders_share_states_but_for_the_count_of_steps() -> None:
    params = [nn.Parameter(torch.ones(3))]
    params[0].grad = torch.ones(3)
    row = Row("alone", "LeNet", "Adam")
    built = steps._built(OPTIMIZERS["Adam"], params, row)
    assert list(built) == ["default", "fused", "ours"]
    assert not row.notes
    states = [optimizer.state[params[0]] for optimizer in built.values()]
    assert len({state["exp_avg"].data_ptr() for state in states}) == 1
    assert len({state["step"].data_ptr() for state in states}) == 3
    # The first has taken one step; each other one, the step of before and its own.
    assert [float(state["step"]) for state in states] == [1, 2, 2]


def test_who_does_not_run_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            if self.defaults["fused"]:
                raise RuntimeError("no kernel\nand more")
            return super().step(closure)

    case = OPTIMIZERS["Adam"]
    params = [nn.Parameter(torch.ones(3))]
    params[0].grad = torch.ones(3)
    row = Row("alone", "LeNet", "Adam")
    refusing = OptimizerCase(case.name, Refusing, case.of_ours, case.states)
    monkeypatch.setattr(OptimizerCase, "contenders", lambda self: ["default", "foreach", "fused", "ours"])
    assert list(steps._built(refusing, params, row)) == ["default", "ours"]
    assert row.notes == ["torch's fused does not run: no kernel"]


# -- the run ---------------------------------------------------------------------------------------------


def test_cases_are_those_of_the_plan() -> None:
    labels = list(all_cases())
    assert len(labels) == 5 + 4 + 25 + 5 + 8 + len(WAYS) + 1 + 5
    assert labels[0] == "in the loop: Adam, LeNet"
    assert [label for label in labels if is_asked_for(label, ["loop Adam"])] == labels[:5]


def _options(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"device": "cpu", "only": [], "seconds": 0.001, "limit": 60.0, **changed})


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Any], Row]]:
    def fine(setting: Any) -> Row:
        return Row("alone", "LeNet", "Adam", numbers={"device": float(setting.seconds["alone"])})

    def fails(setting: Any) -> Row:
        raise ValueError("not here\nfor a reason")

    def dies(setting: Any) -> Row:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    cases = {"first": fine, "fails": fails, "dies": dies, "last": fine}
    monkeypatch.setattr(command, "all_cases", lambda: cases)
    monkeypatch.setattr(command, "copy_bandwidth", lambda device: 1e9)
    return cases


@pytest.mark.processes
def test_a_case_that_ends_its_process_costs_nothing_else(
    cases: dict[str, Callable[[Any], Row]], tmp_path: Path
) -> None:
    path = tmp_path / "cuda.json"
    command.measure_all(list(cases), _options(), path)
    record = read(path)
    assert list(record.rows) == ["first", "last"]
    assert record.rows["last"].numbers == {"device": 0.001}
    assert record.failed == {"fails": "ValueError: not here", "dies": "ended its process with -9"}
    assert record.running is None
    assert record.facts == {"copy GB/s": 1.0}


@pytest.mark.processes
@pytest.mark.parametrize("was_there", [False, True])
def test_a_process_that_ends_before_the_first_case_ends_the_run(
    was_there: bool, cases: dict[str, Callable[[Any], Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older run has left is not taken for its rows."""
    path = tmp_path / "cuda.json"
    if was_there:
        command.measure_all(["first"], _options(), path)
    monkeypatch.setattr(command, "copy_bandwidth", lambda device: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(SystemExit, match="-9 before it measured anything"):
        command.measure_all(["first"], _options(), path)


@pytest.mark.processes
def test_a_case_that_hangs_is_given_up(
    cases: dict[str, Callable[[Any], Row]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "STUCK", 1.0)
    cases["dies"] = lambda setting: signal.pause()  # type: ignore[assignment, return-value]
    command.measure_all(["dies", "last"], _options(), tmp_path / "cuda.json")
    record = read(tmp_path / "cuda.json")
    assert record.failed == {"dies": "took too long"}
    assert list(record.rows) == ["last"]


def test_only_what_is_asked_for_is_measured_again(
    cases: dict[str, Callable[[Any], Row]], tmp_path: Path
) -> None:
    path = tmp_path / "cuda.json"
    command.measure(["first", "fails"], _options(), path, deadline=float("inf"), begin=True)
    command.measure(["last"], _options(only=["last"]), path, deadline=float("inf"), begin=True)
    assert list(read(path).rows) == ["first", "last"]
    assert list(read(path).failed) == ["fails"]
    command.measure(["last"], _options(), path, deadline=float("-inf"), begin=True)
    assert read(path).rows == {}
    assert read(path).failed == {"last": "no time was left"}


def test_without_a_gpu_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        command.measure([], _options(device="cuda"), tmp_path / "cuda.json", 0.0, True)
    assert left.value.code == command.NO_DEVICE
    assert not list(tmp_path.iterdir())


def test_every_kind_of_case_runs() -> None:
    """As small as can be, on the CPU and its engine."""
    looped = steps.in_the_loop("Adam", "transformer", CPU, seconds=0)
    assert list(looped.times) == ["default", "fused", "ours"]
    assert list(looped.ratios) == ["default", "fused"]
    assert looped.engine.startswith("fused CPU engine")
    alone = steps.step_alone("RMSprop", "billion", CPU, seconds=0, bandwidth=1e9)
    moved = alone.elements * 20 / (alone.times["ours"].whole.median * 1e-6)
    assert alone.numbers["of copy bandwidth"] == pytest.approx(moved / 1e9)
    kept = storing("states bfloat16", CPU, seconds=0)
    assert kept.numbers == {"bytes of states": 4.0}
    clipped = whole_tensors("torch-clip", "resnet18", CPU, seconds=0)
    assert list(clipped.ratios) == ["theirs"]
    steps.peak_memory("ours, states 8 bits", CPU)


def test_the_billion_has_as_many() -> None:
    assert elements(ALONE["billion"].shapes()) == pytest.approx(1e9, rel=0.01)


# -- pages -----------------------------------------------------------------------------------------------


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
    assert "A GPU, torch 9" in text
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
