"""Adagrad on the words of texts: the documents, the online game, and the written criterion."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.common.errors import UserError
from recipes.parts.docstrings import LIBRARIES, NAMES, home, load_documents, texts
from recipes.sparse_features import (
    ALL,
    COMMON,
    OPTIMIZERS,
    Outcome,
    judge,
    learn,
)

from .conftest import SmokeRun

EACH = 8


@pytest.fixture(scope="module")
def folder(smoke: Callable[[str], SmokeRun]) -> Path:
    """Where the smoke size was run."""
    return smoke("sparse_features").folder


def test_documents_are_texts_of_each_library_without_its_name() -> None:
    data = load_documents(EACH)
    assert Counter(data.libraries.tolist()) == dict.fromkeys(range(len(LIBRARIES)), EACH)
    assert all(len(words) == len(words.unique()) >= 10 for words in data.words)
    counts = torch.bincount(torch.cat(data.words))
    assert torch.equal(counts, data.counts)
    assert (counts.diff() <= 0).all()  # the commonest first
    words = next(texts("torch", random.Random(0)))
    assert not NAMES & {*words}
    assert load_documents.__wrapped__(EACH).sha256() == data.sha256()
    assert load_documents(EACH, seed=1).sha256() != data.sha256()


@pytest.mark.parametrize("name", ["SGD", "SGD, η/√t", "Adagrad"])
def test_the_game_is_online_learning(name: str) -> None:
    """Every document pays before it teaches: written out in numpy, in float64."""
    lr, classes = 0.1, len(LIBRARIES)
    outcome = learn(ALL, name, lr, EACH, seed=3, tuning=True)
    data = load_documents(EACH)
    half = len(data.words) // 2
    order = torch.randperm(half, generator=torch.Generator().manual_seed(3)).tolist()
    weights, squares = np.zeros((len(data.counts), classes)), np.zeros((len(data.counts), classes))
    paid = 0.0
    for t, number in enumerate(order, start=1):
        words = data.words[number].numpy()
        scores = weights[words].sum(axis=0)
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        paid -= math.log(chances[data.libraries[number]])
        gradient = chances - np.eye(classes)[data.libraries[number]]
        if name == "Adagrad":
            squares[words] += gradient**2
            weights[words] -= lr * gradient / (np.sqrt(squares[words]) + 1e-10)
        else:
            weights[words] -= lr * gradient * (t**-0.5 if "√" in name else 1.0)
    assert outcome.seen[-1] == half
    assert outcome.regret[-1] == pytest.approx(paid / half, rel=1e-4)


def test_tuning_and_streams_share_no_document() -> None:
    # With a rate of zero nothing is learnt: every document pays log 6.
    outcome = learn(COMMON, "SGD", 0.0, EACH, seed=0, tuning=False)
    assert outcome.regret == pytest.approx([math.log(6)] * len(outcome.regret))
    half = len(load_documents(EACH).words) // 2
    assert (
        outcome.accuracy == (load_documents(EACH).libraries[half:] == 0).double().mean()
    )  # the first of equals


def streams(**regrets: tuple[float, float]) -> dict[tuple[str, str], list[Outcome]]:
    """Two streams each; all but those named pay 1.0 and 1.01, Adagrad 0.80 and 0.81 from all words."""
    made = {}
    for condition in (ALL, COMMON):
        for name in OPTIMIZERS:
            usual = (0.80, 0.81) if (condition, name) == (ALL, "Adagrad") else (1.0, 1.01)
            values = regrets.get(name, usual) if condition == ALL else usual
            made[condition, name] = [Outcome([1], [value], 0.5) for value in values]
    return made


def test_the_verdict_follows_the_written_criterion() -> None:
    assert judge(streams()).borne_out
    assert not judge(streams(Adagrad=(0.80, 1.1))).borne_out  # not by two standard errors
    assert not judge(streams(SparseAdam=(0.70, 0.71))).borne_out
    assert not judge(streams(Momentum=(0.80, 0.81))).borne_out
    # A larger lead where nothing is sparse.
    assert not judge({**streams(), (COMMON, "Adagrad"): [Outcome([1], [0.5], 0.5)] * 2}).borne_out


def test_the_rows_and_pictures_of_the_outcome(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert [row["optimizer"] for row in result["rows"]] == list(OPTIMIZERS) * 2
    assert result["pictures"] == ["regret.png"]


def test_a_library_that_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match="scipie cannot be imported; pip install"):
        home("scipie")
