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

from benchmarks.cuda import __main__ as command
from benchmarks.cuda import blocks, steps
from benchmarks.cuda.blocks import PROBES, Sample, Times, in_turns, ratios_of, times_of
from benchmarks.cuda.models import ALONE
from benchmarks.cuda.others import storing, whole_tensors
from benchmarks.cuda.plan import all_cases
from benchmarks.cuda.record import Row, read
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
