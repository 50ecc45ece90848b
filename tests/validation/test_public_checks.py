"""What ``torchopt_course.validation`` offers for the ``check_options`` of a user's own optimizer."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from torchopt_course import validation

from ..optimizers.test_write_your_own import Lion


class CheckedLion(Lion):
    def check_options(self, options: Mapping[str, Any]) -> None:
        super().check_options(options)
        validation.decay_rates(options["betas"])


@pytest.mark.parametrize("betas", [(0.9, 1.0), (-0.1, 0.9), (0.9, math.nan)], ids=str)
def test_own_optimizer_refuses_its_options_in_the_constructor_and_in_groups(betas: Any) -> None:
    with pytest.raises(ValueError, match="Invalid beta parameter at index"):
        CheckedLion([torch.zeros(2, requires_grad=True)], betas=betas)
    optimizer = CheckedLion([torch.zeros(2, requires_grad=True)])
    with pytest.raises(ValueError, match="Invalid beta parameter at index"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "betas": betas})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("check", [validation.at_least_zero, validation.fraction, validation.not_nan])
def test_checks_quote_what_they_were_given(check: Any) -> None:
    check("eps", 0.5)
    with pytest.raises(ValueError, match="Invalid eps: nan"):
        check("eps", math.nan)


@pytest.mark.parametrize("check", [validation.at_least_zero, validation.fraction])
def test_what_is_no_number_is_a_type_error(check: Any) -> None:
    with pytest.raises(TypeError, match="Invalid eps: 'small'"):
        check("eps", "small")


def test_the_old_name_still_works_and_says_the_new_one() -> None:
    sys.modules.pop("torchopt_course.hyperparameters", None)
    with pytest.warns(DeprecationWarning, match=r"torchopt_course\.validation"):
        old = importlib.import_module("torchopt_course.hyperparameters")
    assert all(getattr(old, name) is getattr(validation, name) for name in old.__all__)
