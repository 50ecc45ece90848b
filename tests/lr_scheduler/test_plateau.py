"""ReduceLROnPlateau: torch's sequences, mistakes, checkpoints."""

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


@settings(max_examples=100)
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
