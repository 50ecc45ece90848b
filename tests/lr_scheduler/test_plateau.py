"""ReduceLROnPlateau: torch's sequences, and what is better than torch's."""

from __future__ import annotations

import io
import math
import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

import torchopt_course as oc
from torchopt_course import ReduceLROnPlateau

from .twins import floats, make_optimizer

TorchPlateau = torch_schedulers.ReduceLROnPlateau
# What a checkpoint holds, and what tells all later steps.
MEMORY = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "min_lrs", "mode_worse")

metrics = st.lists(
    st.one_of(
        st.sampled_from([0.0, 1.0, 1.0, 0.9, 0.5, -1.0, -0.5, math.nan, math.inf, -math.inf]),
        st.floats(-3, 3),
        st.floats(),
    ),
    min_size=1,
    max_size=25,
)
options = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.one_of(st.just(0.0), st.floats(0.01, 0.99)),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 0.5, -0.1]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "eps": st.sampled_from([0.0, 1e-8, 0.01]),
    }
)


@settings(max_examples=300)
@given(st.data())
def test_sequences_are_those_of_torch_also_across_a_checkpoint(data: Any) -> None:
    groups = data.draw(st.integers(1, 3), "groups")
    config = data.draw(options, "options")
    bound = st.sampled_from([0.0, 1e-3, 0.04, 0.2])
    config["min_lr"] = data.draw(st.one_of(bound, st.lists(bound, min_size=groups, max_size=groups)))
    name = data.draw(st.sampled_from(["SGD", "torch.SGD"]), "optimizer")
    lr = data.draw(st.sampled_from([0.1, 0.3, "tensor"]), "lr")

    def make(kind: Any) -> Any:
        rate = torch.tensor(0.1, dtype=torch.float64) if lr == "tensor" and groups == 1 else 0.1
        return kind(make_optimizer(name, groups, lr=rate), **config)

    mine, theirs = make(ReduceLROnPlateau), make(TorchPlateau)
    sequence = data.draw(metrics, "metrics")
    exchange = data.draw(st.integers(0, len(sequence)), "checkpoint at")
    for epoch, metric in enumerate(sequence):
        if epoch == exchange:  # each goes on from the other's checkpoint
            saved = [(s.optimizer.state_dict(), s.state_dict()) for s in (theirs, mine)]
            mine, theirs = make(ReduceLROnPlateau), make(TorchPlateau)
            for scheduler, (optimizer_state, state) in zip((mine, theirs), saved, strict=True):
                scheduler.optimizer.load_state_dict(optimizer_state)
                scheduler.load_state_dict(state)
        mine.step(metric)
        theirs.step(torch.tensor(metric, dtype=torch.float64) if epoch % 2 else metric)
        assert [g["lr"] for g in mine.optimizer.param_groups] == [
            g["lr"] for g in theirs.optimizer.param_groups
        ]
        assert mine.get_last_lr() == theirs.get_last_lr()
        for attribute in MEMORY:
            assert getattr(mine, attribute) == getattr(theirs, attribute)
        assert mine.in_cooldown == theirs.in_cooldown


def test_the_lecture_drops_by_ten_after_k_epochs_without_improvement() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(lr=1.0), patience=3)
    lrs = []
    for loss in [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0]:
        scheduler.step(loss)
        lrs += floats(scheduler.get_last_lr())
    # The loss 4.0 is best at epoch 2; epochs 3, 4, 5 are put up with, epoch 6 is one too many.
    assert lrs == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(("eps", "after"), [(0.5, 1.0), (0.4999, 0.5)])
def test_a_reduction_by_no_more_than_eps_is_left_out(eps: float, after: float) -> None:
    for kind in (ReduceLROnPlateau, TorchPlateau):
        scheduler = kind(make_optimizer(lr=1.0), factor=0.5, patience=0, eps=eps)
        scheduler.step(1.0)
        scheduler.step(1.0)
        assert scheduler.get_last_lr() == [after]


def test_is_torchs_class_with_its_signature() -> None:
    import inspect

    assert isinstance(ReduceLROnPlateau(make_optimizer()), TorchPlateau)
    mine, theirs = (inspect.signature(c).parameters for c in (ReduceLROnPlateau, TorchPlateau))
    assert [(p.name, p.default) for p in mine.values() if p.kind is not p.KEYWORD_ONLY] == [
        (p.name, p.default) for p in theirs.values()
    ]


def test_nothing_of_torchs_arithmetic_is_in_use() -> None:
    left_to_torch = {
        name
        for name in vars(TorchPlateau)
        if callable(getattr(TorchPlateau, name))
        and getattr(ReduceLROnPlateau, name) is vars(TorchPlateau)[name]
    }
    assert left_to_torch == {"_init_is_better"}  # never called by ours


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"factor": -1}, ValueError, "-1"),
        ({"factor": 1.0}, ValueError, "1.0"),
        ({"factor": math.nan}, ValueError, "nan"),
        ({"factor": "0.1"}, TypeError, "'0.1'"),
        ({"patience": -1}, ValueError, "-1"),
        ({"patience": None}, TypeError, "None"),
        ({"cooldown": -2}, ValueError, "-2"),
        ({"mode": "maximum"}, ValueError, "'maximum'"),
        ({"mode": None}, ValueError, "None"),
        ({"threshold_mode": "relative"}, ValueError, "'relative'"),
        ({"threshold": math.nan}, ValueError, "nan"),
        ({"threshold": 1.0}, ValueError, "1.0"),
        ({"threshold": -1.0, "mode": "max"}, ValueError, "-1.0"),
        ({"eps": -1e-3}, ValueError, "-0.001"),
        ({"min_lr": -1e-3}, ValueError, "-0.001"),
        ({"min_lr": [0.1, -0.5]}, ValueError, "-0.5"),
        ({"min_lr": [0.1]}, ValueError, "expected 2 min_lrs, got 1"),
    ],
)
def test_a_bad_value_is_named_at_construction(change: dict[str, Any], error: type, named: str) -> None:
    optimizer = make_optimizer(groups=2, lr=0.1)
    before = deepcopy(optimizer.param_groups)
    with pytest.raises(error, match=named.replace("[", r"\[")):
        ReduceLROnPlateau(optimizer, **change)
    assert str(optimizer.param_groups) == str(before)


def test_something_that_is_no_optimizer() -> None:
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        ReduceLROnPlateau([])  # type: ignore[arg-type]


def test_a_metric_that_is_no_number() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer())
    for metric in (None, torch.ones(2), "none"):
        with pytest.raises((TypeError, RuntimeError, ValueError)):
            scheduler.step(metric)  # type: ignore[arg-type]
    assert scheduler.last_epoch == 0


def test_deprecated_epoch_warns_and_numbers() -> None:
    schedulers = [kind(make_optimizer()) for kind in (ReduceLROnPlateau, TorchPlateau)]
    for scheduler in schedulers:
        with pytest.warns(UserWarning, match="epoch parameter"):
            scheduler.step(1.0, epoch=7)
        scheduler.step(1.0)
        assert scheduler.last_epoch == 8


# ---------------------------------------------------------------- where torch is wrong


def test_torch_accepts_a_factor_that_makes_rates_negative() -> None:
    optimizer = make_optimizer(lr=0.1)
    scheduler = TorchPlateau(optimizer, factor=-1, patience=0, min_lr=-1)
    for _ in range(2):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] == -0.1
    with pytest.raises(ValueError, match="factor: -1"):
        ReduceLROnPlateau(optimizer, factor=-1, patience=0)


def test_relative_threshold_of_negative_metrics() -> None:
    """pytorch #47513: a loss that gets worse and worse, from -1.0 to -0.9, is no plateau to torch."""

    def lr_after(kind: Any, losses: list[float], **change: Any) -> float:
        optimizer = make_optimizer(lr=1.0)
        scheduler = kind(optimizer, patience=2, threshold=0.05, **change)
        for loss in losses:
            scheduler.step(loss)
        return float(optimizer.param_groups[0]["lr"])

    worse = [-1.0, -0.98, -0.96, -0.94, -0.92, -0.9]
    assert lr_after(TorchPlateau, worse) == lr_after(ReduceLROnPlateau, worse) == 1.0
    assert lr_after(ReduceLROnPlateau, worse, threshold_mode="rel_magnitude") < 1.0
    better = [-1.0, -1.1, -1.25, -1.4, -1.6, -1.8]
    assert lr_after(ReduceLROnPlateau, better, threshold_mode="rel_magnitude") == 1.0


@given(st.lists(st.floats(1e-6, 1e6), max_size=20), st.sampled_from(["min", "max"]), st.booleans())
@settings(max_examples=200)
def test_magnitude_is_torchs_threshold_above_zero_and_its_mirror_image_below(
    losses: list[float], mode: str, mirrored: bool
) -> None:
    other = {"min": "max", "max": "min"}[mode]
    magnitude = ReduceLROnPlateau(
        make_optimizer(lr=1.0),
        other if mirrored else mode,
        patience=1,
        threshold=0.25,  # a power of two: both ways to compute the bar round alike
        threshold_mode="rel_magnitude",
    )
    relative = TorchPlateau(make_optimizer(lr=1.0), mode, patience=1, threshold=0.25)
    for loss in losses:
        magnitude.step(-loss if mirrored else loss)
        relative.step(loss)
        assert abs(magnitude.best) == abs(relative.best)
        assert magnitude.num_bad_epochs == relative.num_bad_epochs
        assert magnitude.get_last_lr() == relative.get_last_lr()


@pytest.mark.parametrize("first", [math.nan, math.inf, -math.inf, 0.0])
def test_magnitude_takes_the_first_finite_metric(first: float) -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(), threshold_mode="rel_magnitude")
    scheduler.step(first)
    scheduler.step(-5.0)
    assert scheduler.best == (-math.inf if first == -math.inf else -5.0)
    assert scheduler.num_bad_epochs == (1 if first == -math.inf else 0)


@pytest.mark.parametrize("name", ["SGD", "torch.SGD"])
def test_a_group_added_later_is_reduced_too(name: str) -> None:
    """pytorch #20997 and #62475."""
    optimizer = make_optimizer(name, lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=0, min_lr=0.05)
    scheduler.step(1.0)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.2})
    for _ in range(3):
        scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.05, 0.05]


def test_a_group_added_later_to_a_list_of_bounds_is_torchs_error_and_loses_no_reduction() -> None:
    messages = []
    for kind in (TorchPlateau, ReduceLROnPlateau):
        optimizer = make_optimizer(lr=1.0)
        scheduler = kind(optimizer, patience=0, min_lr=[0.5])
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
        scheduler.step(1.0)
        before = scheduler.state_dict()
        with pytest.raises(RuntimeError, match="number of param groups") as caught:
            scheduler.step(1.0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert scheduler.state_dict() == before
    scheduler.min_lrs.append(0.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.5, 0.1]


def test_bounds_that_a_user_changed_survive_a_new_group() -> None:
    optimizer = make_optimizer(lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    scheduler.min_lrs[0] = 0.7
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.7, 0.1]


def test_one_tensor_rate_for_all_groups_is_reduced_once() -> None:
    def reduced(kind: Any) -> list[float]:
        optimizer = make_optimizer("torch.Adam", groups=3, lr=torch.tensor(1.0))
        scheduler = kind(optimizer, patience=0, factor=0.5, min_lr=[0.0, 0.75, 0.0])
        scheduler.step(1.0)
        scheduler.step(1.0)
        return floats(scheduler.get_last_lr())

    assert reduced(TorchPlateau) == [0.25] * 3  # the second group has gone below its bound
    assert reduced(ReduceLROnPlateau) == [0.5, 0.75, 0.5]


def test_a_tensor_that_some_of_the_groups_share_is_reduced_once() -> None:
    optimizer = make_optimizer("torch.Adam", groups=3, lr=torch.tensor(1.0))
    optimizer.param_groups[2]["lr"] = 1.0
    scheduler = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert floats(scheduler.get_last_lr()) == [0.5] * 3


def test_takes_the_last_epoch_that_some_hosts_give_to_every_scheduler() -> None:
    """skorch does, unless the class is torch's own."""
    assert ReduceLROnPlateau(make_optimizer(), last_epoch=-1).last_epoch == 0
    assert ReduceLROnPlateau(make_optimizer(), last_epoch=4).last_epoch == 5


def test_a_tensor_rate_is_changed_in_place() -> None:
    rate = torch.tensor(0.5)
    scheduler = ReduceLROnPlateau(make_optimizer("Adam", lr=rate), patience=0)
    scheduler.step(1.0)
    scheduler.step(1.0)
    assert scheduler.optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)
    (last,) = scheduler.get_last_lr()
    assert last is not rate


def test_has_the_counter_that_accelerate_counts_up() -> None:
    with pytest.raises(AttributeError):
        TorchPlateau(make_optimizer())._step_count += 1
    scheduler = ReduceLROnPlateau(make_optimizer())
    scheduler._step_count += 1
    TorchPlateau(make_optimizer()).load_state_dict(scheduler.state_dict())


# ---------------------------------------------------------------- checkpoints


def test_state_has_torchs_keys_and_is_read_with_weights_only() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer("Adam", lr=torch.tensor(0.1)), min_lr=[0.01])
    scheduler.step(torch.tensor(1.0))
    assert set(scheduler.state_dict()) == set(TorchPlateau(make_optimizer()).state_dict())
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    other = ReduceLROnPlateau(make_optimizer("Adam"))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.state_dict() == scheduler.state_dict()


def test_loading_leaves_the_callers_state_alone() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer())
    state = scheduler.state_dict()
    before = deepcopy(state)
    optimizer = make_optimizer()
    other = ReduceLROnPlateau(optimizer, patience=0)
    other.load_state_dict(state)
    other.min_lrs[0] = 5.0
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    for _ in range(12):
        other.step(1.0)
    assert state == before
    state["min_lrs"].append(1.0)
    assert scheduler.min_lrs == [0]


def test_the_state_of_something_else_is_refused_and_nothing_changed() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer())
    before = scheduler.state_dict()
    with pytest.raises(KeyError, match="not the state of a ReduceLROnPlateau"):
        scheduler.load_state_dict(torch_schedulers.StepLR(make_optimizer(), 1).state_dict())
    with pytest.raises(ValueError, match="'median'"):
        scheduler.load_state_dict({**before, "mode": "median"})
    assert scheduler.state_dict() == before


def test_pickles_and_copies() -> None:
    scheduler = ReduceLROnPlateau(make_optimizer(lr=1.0), patience=1)
    scheduler.step(1.0)
    for twin in (pickle.loads(pickle.dumps(scheduler)), deepcopy(scheduler)):
        assert twin.optimizer is not scheduler.optimizer
        for _ in range(2):
            twin.step(1.0)
        assert floats(twin.get_last_lr()) == pytest.approx([0.1])
    assert scheduler.get_last_lr() == [1.0]


def test_a_subclass_decides_what_is_better() -> None:
    """The hooks that code written for torch's class overrides."""
    reductions: list[int] = []

    class Never(oc.ReduceLROnPlateau):
        def _is_better(self, a: float, best: float) -> bool:
            return False

        def _reduce_lr(self, epoch: int) -> None:
            reductions.append(epoch)

    scheduler = Never(make_optimizer(), patience=1)
    for metric in (3.0, 2.0, 1.0, 0.0):
        scheduler.step(metric)
    assert reductions == [2, 4]
