"""The split: disjoint, stratified, the same for all runs; validation never touches the test rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from recipes.common.data import Data, Split, load_data

CPU = torch.device("cpu")


def rows(split: Split) -> tuple[set[int], set[int]]:
    data = load_data("digits", split, CPU)
    return set(data.train_rows.tolist()), set(data.eval_rows.tolist())


def test_the_test_split_uses_every_row_once() -> None:
    train, test = rows("test")
    assert not train & test
    assert train | test == set(range(1797))
    assert len(test) == 360


def test_the_validation_split_never_touches_the_test_rows() -> None:
    train_part, test_part = rows("test")
    train, validation = rows("validation")
    assert not train & validation
    assert train | validation == train_part
    assert not (train | validation) & test_part
    assert len(validation) == 288


@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_digit_keeps_its_share(split: Split) -> None:
    data = load_data("digits", split, CPU)
    in_train = np.bincount(data.train_targets.numpy(), minlength=10)
    in_eval = np.bincount(data.eval_targets.numpy(), minlength=10)
    # 20 % of each digit, rounded up or down: a plain random split misses by up to ten rows.
    assert np.abs(in_eval - 0.2 * (in_train + in_eval)).max() <= 1


@pytest.mark.parametrize("split", ["test", "validation"])
def test_inputs_and_targets_are_the_source_rows_scaled_to_one(split: Split) -> None:
    source = load_digits()
    data = load_data("digits", split, CPU)
    for inputs, targets, row_numbers in (
        (data.train_inputs, data.train_targets, data.train_rows),
        (data.eval_inputs, data.eval_targets, data.eval_rows),
    ):
        assert inputs.dtype == torch.float32
        np.testing.assert_array_equal(inputs.numpy() * 16, source.data[row_numbers])
        np.testing.assert_array_equal(targets.numpy(), source.target[row_numbers])
    assert data.train_inputs.min() == 0
    assert data.train_inputs.max() == 1


def test_the_split_does_not_depend_on_the_random_state_of_the_run() -> None:
    def load(seed: int) -> Data:
        torch.manual_seed(seed)
        np.random.seed(seed)
        return load_data("digits", "test", CPU)

    assert torch.equal(load(1).eval_rows, load(2).eval_rows)
