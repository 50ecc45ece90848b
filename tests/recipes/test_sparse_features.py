"""Digits as sparse features: the data, the model, the optimizers on sparse gradients, the verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional as F

import torchopt_course as optim
from recipes import sparse_features
from recipes.parts import sparse_digits
from recipes.parts.sparse_digits import (
    FEATURES,
    HIDDEN,
    OPTIMIZERS,
    Job,
    Outcome,
    counts_of,
    features_of,
    make_model,
    rarity,
    rows_of,
    train,
)
from recipes.sparse_features import CONDITIONS, Contender, judge, lead, movement_slope, steps_to

from .conftest import SmokeRun

SMOKE = sparse_features.SIZES["smoke"]


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("sparse_features").folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_the_result_is_complete(result: dict[str, Any]) -> None:
    named = [(row["condition"], row["optimizer"]) for row in result["rows"]]
    assert named == [(condition, name) for condition in CONDITIONS for name in OPTIMIZERS]
    for row in result["rows"]:
        assert row["lr"] in SMOKE.rates
        assert len(row["accuracy_by_seed"]) == SMOKE.seeds
        # A quarter of the rows are rare: the mean over all of them is that of both parts.
        whole = 0.25 * np.array(row["rare_accuracy_by_seed"]) + 0.75 * np.array(
            row["common_accuracy_by_seed"]
        )
        assert row["accuracy_by_seed"] == pytest.approx(whole)
    # Half of a pass does not learn much, but more than chance.
    assert np.mean([row["accuracy_by_seed"] for row in result["rows"][:5]]) > 0.4


def test_pictures_and_curves_are_there(folder: Path, result: dict[str, Any]) -> None:
    assert result["pictures"] == ["accuracy.png", "rare_weights.png", "learning_rates.png"]
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    assert {f"test_accuracy/Zipf/{name}" for name in OPTIMIZERS} <= set(tags["scalars"])


def test_features_and_their_counts_are_numpys() -> None:
    pixels = load_digits().data
    features = features_of(torch.tensor(pixels, dtype=torch.float32) / 16)
    counts = counts_of(features).reshape(64, 17)
    for pixel in range(64):
        expected = np.bincount(pixels[:, pixel].astype(int), minlength=17)
        np.testing.assert_array_equal(counts[pixel].numpy(), expected)
    hidden = features.clone()
    hidden[:, 10:] = HIDDEN
    np.testing.assert_array_equal(counts_of(hidden)[:170].numpy(), counts[:10].flatten().numpy())
    assert counts_of(hidden)[170:].sum() == 0


def test_rarity_is_the_mean_inverse_count() -> None:
    features = torch.tensor([[0, 1], [0, HIDDEN], [0, 2], [HIDDEN, HIDDEN]])
    counts = counts_of(features)
    assert counts[:4].tolist() == [3, 1, 1, 0]
    assert rarity(features, counts).tolist() == pytest.approx([(1 / 3 + 1) / 2, 1 / 3, (1 / 3 + 1) / 2, 0])


def test_pixels_are_hidden_as_the_power_says() -> None:
    for power in CONDITIONS.values():
        shares = np.sort((rows_of(power, 3, "test", None).train != HIDDEN).double().mean(dim=0).numpy())[::-1]
        np.testing.assert_allclose(shares, np.arange(1.0, 65) ** -power, atol=0.06)
    rows = rows_of(1.0, 3, "test", None)
    assert rows.rare.sum() == 90
    values = rarity(rows.test, rows.counts)
    assert values[rows.rare].min() >= values[~rows.rare].max()
    assert not torch.equal(rows.train, rows_of(1.0, 4, "test", None).train)


def test_the_model_is_a_dense_product_with_one_hot_rows() -> None:
    rows = rows_of(0.5, 0, "test", 50)
    model = make_model(sparse=True)
    with torch.no_grad():
        model.weight.copy_(torch.randn(FEATURES + 1, 10))  # also that of hidden pixels, which must not count
    one_hot = np.zeros((len(rows.train), FEATURES), dtype=np.float32)
    for i, row in enumerate(rows.train.tolist()):
        one_hot[i, [number for number in row if number != HIDDEN]] = 1
    expected = one_hot @ model.weight.detach()[:FEATURES].numpy()
    np.testing.assert_allclose(model(rows.train).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adagrad", "Adam"])
def test_steps_on_these_gradients_are_torchs(name: str) -> None:
    """Sparse ones for ours (Adam excepted), dense ones for torch's: the same weights."""
    rows = rows_of(1.0, 0, "test", 64)
    theirs = {
        "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
        "Momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
        "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    }[name]
    ours = make_model(sparse=name != "Adam")
    reference = make_model(sparse=False)
    steppers = [
        (ours, OPTIMIZERS[name](ours.parameters(), lr=0.1)),  # type: ignore[call-arg]
        (reference, theirs(reference.parameters())),
    ]
    for batch in torch.arange(64).split(16):
        for model, optimizer in steppers:
            optimizer.zero_grad()
            F.cross_entropy(model(rows.train[batch]), rows.train_targets[batch]).backward()
            optimizer.step()
        assert ours.weight.grad is not None
        assert ours.weight.grad.is_sparse is (name != "Adam")
        torch.testing.assert_close(ours.weight, reference.weight, rtol=1e-5, atol=1e-6)
    assert ours.weight[HIDDEN].abs().sum() == 0
    assert ours.weight.abs().sum() > 0


def test_adam_refuses_sparse_gradients() -> None:
    rows = rows_of(1.0, 0, "test", 64)
    model = make_model(sparse=True)
    optimizer = optim.Adam(model.parameters())
    F.cross_entropy(model(rows.train), rows.train_targets).backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


def test_adagrads_effective_steps_are_those_of_the_sum_of_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step one batch of all rows: the sums can be written down with dense algebra."""
    monkeypatch.setattr(sparse_digits, "BATCH", 64)
    outcome = train(Job(1.0, "Adagrad", 0.3, 0, "test", 64, 2, 1))
    rows = rows_of(1.0, 0, "test", 64)
    one_hot = F.one_hot(rows.train, FEATURES + 1).sum(dim=1)[:, :FEATURES].double()
    weights, squares = torch.zeros(FEATURES, 10).double(), torch.zeros(FEATURES, 10).double()
    for _ in range(2):
        gradient = gradient_by_hand(one_hot, weights, rows.train_targets)
        squares += gradient**2
        weights -= 0.3 * gradient / (squares.sqrt() + 1e-10)
    seen = one_hot.sum(dim=0) > 0
    found = torch.tensor(outcome.effective_steps)[seen].double()
    torch.testing.assert_close(found, (0.3 / (squares.sqrt() + 1e-10)).mean(dim=1)[seen], rtol=1e-3, atol=0)
    moved = torch.tensor(outcome.movement).double()
    torch.testing.assert_close(moved, weights.norm(dim=1), rtol=1e-4, atol=1e-6)
    assert [step for step, _ in outcome.curve] == [1, 2]


def gradient_by_hand(one_hot: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    """Of the mean cross-entropy: the mean of feature times (probability - target)."""
    wrong = torch.softmax(one_hot @ weights, dim=1) - F.one_hot(targets, 10)
    return one_hot.T @ wrong / len(targets)


def test_a_training_that_diverges_is_never_chosen() -> None:
    outcome = train(Job(0.0, "SGD", 1e38, 0, "test", 64, 2, 0))
    assert (outcome.loss, outcome.accuracy) == (math.inf, 0.0)


def test_steps_to_the_target_and_slopes() -> None:
    curve = [(10, 0.2), (20, 0.6), (30, 0.4)]
    assert steps_to(0.5, curve) == 20
    assert steps_to(0.7, curve) == math.inf
    counts = [0, 1, 4, 9, 100]
    assert movement_slope(counts, [0.0, *(3 * n**0.5 for n in counts[1:])]) == pytest.approx(0.5)


def contenders(**rare: tuple[float, ...]) -> list[Contender]:
    """Made-up outcomes: accuracies on Zipf's rare rows; with every pixel all are equal."""

    def outcomes(values: tuple[float, ...]) -> list[Outcome]:
        return [Outcome(1.0, 1.0, 0.5, value, 0.5, [], [], []) for value in values]

    plain = {name: rare.get(name, (0.30, 0.31, 0.32)) for name in OPTIMIZERS}
    return [
        Contender(condition, name, 0.1, False, outcomes(values if condition == "Zipf" else (0.9,) * 3), 1.0)
        for condition in CONDITIONS
        for name, values in plain.items()
    ]


def test_the_lead_is_taken_seed_by_seed() -> None:
    one, other = contenders(Adagrad=(0.40, 0.42, 0.41))[-3], contenders()[-5]
    mean, error = lead(one, other)
    differences = np.array([0.10, 0.11, 0.09])
    assert mean == pytest.approx(differences.mean())
    assert error == pytest.approx(differences.std(ddof=1) / 3**0.5)


def test_each_point_of_the_criterion_can_fail() -> None:
    ahead = contenders(Adagrad=(0.40, 0.42, 0.41))
    assert judge(ahead).borne_out
    assert not judge(contenders(Adagrad=(0.20, 0.45, 0.31))).borne_out  # not by two standard errors
    assert not judge(contenders(Adagrad=(0.40, 0.42, 0.41), Adam=(0.50, 0.51, 0.53))).borne_out
    # As much ahead of SGD where features are not sparse.
    everywhere = [
        replace(c, outcomes=[replace(o, rare_accuracy=0.7) for o in c.outcomes])
        if (c.condition, c.optimizer) == ("every pixel", "SGD")
        else c
        for c in ahead
    ]
    assert not judge(everywhere).borne_out
