"""What the benchmarks make of samples: made-up samples against values worked out by hand."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks import machine
from benchmarks.bandwidth import Bandwidth, share, streaming_bandwidth
from benchmarks.machine import torch_threads
from benchmarks.table import three_digits
from benchmarks.timing import (
    Pace,
    Spread,
    calls_in_a_turn,
    interleave,
    microseconds,
    ratio,
    rotated,
    spread,
    take_turns,
)
from benchmarks.workloads import MODELS, OPTIMIZERS, OUR_ENGINES, OptimizerCase, elements, random_parameters


def test_spread_is_the_median_and_the_quartiles() -> None:
    assert spread([4, 1, 3, 2, 5]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_time_is_over_all_calls_whatever_their_round() -> None:
    # All calls: 1, 1, 1, 5, 9 microseconds. The median of the rounds' medians would be 5.
    assert microseconds([[1000, 1000, 1000], [5000], [9000]]).median == 1


def test_ratio_is_formed_within_each_round() -> None:
    torchs = [[40, 20, 30], [10, 10, 10], [80, 80, 90]]  # medians 30, 10, 80
    ours = [[10, 10, 99], [20, 20, 20], [20, 20, 10]]  # medians 10, 20, 20
    assert ratio(torchs, ours) == Spread(3, (3 + 0.5) / 2, (3 + 4) / 2)


def test_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([[1], [1]], [[1]])


@pytest.mark.parametrize(
    ("microseconds_of_a_call", "calls"), [(100, 200), (19_000, 3), (300_000, 3), (1, 1000)]
)
def test_a_turn_has_at_least_three_calls_and_lasts_20_ms(microseconds_of_a_call: int, calls: int) -> None:
    assert calls_in_a_turn(microseconds_of_a_call * 1000, turn_seconds=0.02) == calls


def test_every_round_starts_with_another_contender() -> None:
    assert [rotated("abc", i) for i in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    samples = interleave(contenders, Pace(seconds=0, least_rounds=3, turn_seconds=1e-9))
    assert {name: [len(turn) for turn in rounds] for name, rounds in samples.items()} == {
        "a": [3, 3, 3],
        "b": [3, 3, 3],
    }
    # One more in each turn, that is not counted.
    assert "".join(calls).endswith("aaaabbbb" + "bbbbaaaa" + "aaaabbbb")


def test_first_call_of_a_turn_is_not_counted() -> None:
    def turn(count: int) -> list[int]:
        return [10**9] + [1] * (count - 1)

    assert take_turns({"a": turn}, Pace(seconds=0, least_rounds=2, turn_seconds=1e-9)) == {
        "a": [[1, 1, 1], [1, 1, 1]]
    }


def test_share_of_the_bandwidth() -> None:
    limit = Bandwidth(2, {"a loop": 40.0, "something slower": 20.0})
    # 28 bytes of a million elements in a millisecond are 28 GB/s.
    assert share(28, 1_000_000, 1000.0, limit) == pytest.approx(28 / 40)
    assert limit.how == "a loop"
    better = limit.or_better(Bandwidth(2, {"a loop": 10.0, "something slower": 50.0}))
    assert better.candidates == {"a loop": 40.0, "something slower": 50.0}
    assert better.gigabytes_per_second == 50


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidth_is_measured_both_ways(threads: int) -> None:
    limit = streaming_bandwidth(threads, elements=(1 << 19) + 1, repetitions=1)
    assert limit.threads == threads
    assert len(limit.candidates) == 2
    assert all(value > 0 for value in limit.candidates.values())


def test_only_what_others_do_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    first = machine._busy_seconds()
    assert first is not None
    assert first > 0
    busy, own, clock = iter([100.0, 103.0]), iter([1.0, 2.0]), iter([10.0, 12.0])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "process_time", lambda: next(own))
    monkeypatch.setattr(machine, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with machine.watching_others() as others:
        pass
    # Two cores had four seconds in these two. Three were worked, one of them by us.
    assert others.share == 2 / 4
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_busy_seconds", lambda: None)
    with machine.watching_others() as others:
        pass
    assert others.share is None


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (12.34, "12.3"), (345.6, "346"), (999.9, "1,000"), (17_432, "17,400")],
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def _full_states(optimizer: Optimizer, param: Tensor) -> int:
    return sum(state.shape == param.shape for state in optimizer.state[param].values() if state is not None)


@pytest.mark.parametrize("case", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_bytes_match_the_states_that_are_kept(case: OptimizerCase) -> None:
    for contender in case.contenders():
        param = nn.Parameter(torch.ones(3, 2))
        param.grad = torch.ones(3, 2)
        optimizer = case.build(contender, [param])
        optimizer.step()
        read_or_written = 3 + 2 * _full_states(optimizer, param)
        assert case.bytes_per_element == param.element_size() * read_or_written, contender


def test_bytes_per_element() -> None:
    assert {name: case.bytes_per_element for name, case in OPTIMIZERS.items()} == {
        "SGD": 12,
        "Momentum": 20,
        "Adagrad": 20,
        "RMSprop": 20,
        "Adam": 28,
    }


def test_contenders_of_a_case_differ_in_nothing_but_the_engine() -> None:
    for case in OPTIMIZERS.values():
        results = []
        for contender in (*case.contenders(), *OUR_ENGINES):
            torch.manual_seed(0)
            params = random_parameters([(5, 3), (7,)])
            optimizer = case.build(contender, params)
            for group in optimizer.param_groups:
                group["lr"] = 0.1  # the benchmarks' own is too small to see
            for _ in range(3):
                optimizer.step()
            results.append(torch.cat([param.detach().ravel() for param in params]))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0])


def test_torch_has_no_fused_rmsprop() -> None:
    assert OPTIMIZERS["RMSprop"].contenders() == ["default", "foreach", "ours"]
    assert OPTIMIZERS["Adam"].contenders() == ["default", "foreach", "fused", "ours"]


@pytest.mark.parametrize(
    ("name", "tensors", "count"),
    [
        ("lenet", 10, 61_706),
        ("mlp", 4, 203_530),
        ("wide", 6, 1_863_690),
        ("many", 1000, 64_000),
        ("resnet18", 62, 11_689_512),
        ("gpt2", 148, 124_439_808),
    ],
)
def test_models_have_their_published_sizes(name: str, tensors: int, count: int) -> None:
    shapes = MODELS[name].shapes()
    assert (len(shapes), elements(shapes)) == (tensors, count)
