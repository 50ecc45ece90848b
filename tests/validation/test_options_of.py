"""A constructor that writes its options once."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch

import torchopt_course as oc
from torchopt_course.validation import options_of

from ..helpers import NAMES, ours, parameters, theirs
from ..optimizers.test_write_your_own import Lion


class ShortLion(Lion):
    def __init__(
        self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        oc.ElementwiseOptimizer.__init__(self, params, options_of(locals()))
        super()  # what `options_of` knows the class by


class Warm(oc.Adam):
    """A subclass with one option more, and all others of its base without naming them."""

    def __init__(self, params: Any, lr: float = 1e-2, **options: Any) -> None:
        super().__init__(params, **options_of(locals()))


@pytest.mark.parametrize("name", NAMES)
def test_groups_have_torchs_options_in_torchs_order(name: str) -> None:
    mine, reference = ours(name)(parameters()), theirs(name)(parameters())
    assert list(mine.defaults.items()) == list(reference.defaults.items())
    assert list(mine.param_groups[0]) == list(reference.param_groups[0])


@pytest.mark.parametrize("cls", [oc.SGD, oc.Momentum, oc.Adagrad, oc.RMSprop, oc.Adam, oc.AdamW])
def test_each_argument_arrives_in_the_group_of_its_name(cls: type[oc.ElementwiseOptimizer]) -> None:
    given: dict[str, Any] = {}
    for n, (option, argument) in enumerate(list(inspect.signature(cls).parameters.items())[1:]):
        given[option] = 0.5 + n / 64 if isinstance(argument.default, float) else argument.default
    given |= {"maximize": True, "foreach": True}
    if "betas" in given:
        given["betas"] = (0.25, 0.75)
    group = cls(parameters(), **given).param_groups[0]
    fused = given.pop("fused")
    # These are not in the groups of who does not ask.
    assert given.pop("state_dtype") is given.pop("rounding") is None
    assert given.pop("transforms") == ()
    assert {name: group[name] for name in given} == given
    assert group.get("fused") is fused


def test_subclass_passes_on_what_it_does_not_name() -> None:
    optimizer = Warm(parameters(), betas=[0.5, 0.75], amsgrad=True)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["amsgrad"]) == (1e-2, (0.5, 0.75), True)
    assert "options" not in group
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert again.param_groups[0].keys() == group.keys()
    with pytest.raises(TypeError, match="etta"):
        Warm(parameters(), etta=1.0)


def test_short_and_long_constructor_make_the_same_optimizer() -> None:
    short, long = ShortLion(parameters(), 1e-3), Lion(parameters(), 1e-3)
    assert list(short.defaults.items()) == list(long.defaults.items())


def test_what_is_no_constructor_with_named_options_is_refused() -> None:
    with pytest.raises(TypeError, match=r"locals\(\) of a constructor .* got 'lr'"):
        options_of({"lr": 1.0})

    class Unnamed(Lion):
        def __init__(self, params: Any, *rest: Any) -> None:
            super().__init__(params, **options_of(locals()))

    with pytest.raises(TypeError, match=r"Unnamed.__init__ takes \*rest, expected each option by its name"):
        Unnamed([torch.zeros(1, requires_grad=True)], 0.5)
    with pytest.raises(KeyError, match="etta"):
        options_of({"self": None, "params": [], "__class__": Lion, "lr": 1.0}, "etta")
