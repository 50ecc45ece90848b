"""Transforms and a rule become one rule: the same on every engine, in the order in which they are listed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from hypothesis import strategies as st

import torchopt_course as oc
from torchopt_course.transforms import (
    Transform,
    cautious,
    clip_global_norm,
    clip_norm,
    clip_value,
    decoupled_decay,
    ema,
    lookahead,
    skip_nonfinite,
)

from ..helpers import (
    ENGINES,
    NAMES,
    ROOT,
    assert_same,
    engines_used,
    every_engine,
    ours,
    parameters,
    set_gradients,
)
from ..optimizers.test_write_your_own import Lion

ALL: list[Any] = [
    lambda: clip_value(0.7),
    lambda: clip_norm(1.2),
    lambda: clip_global_norm(1.5),
    lambda: cautious(),
    lambda: decoupled_decay(0.1),
    lambda: lookahead(2, 0.3),
    lambda: ema(0.8),
    lambda: skip_nonfinite(),
]


class momentum(Transform):
    """A transform of the gradient with a state, as SGD has it."""

    states = ("velocity",)

    def __init__(self, damping: float) -> None:
        super().__init__(damping=damping)

    @staticmethod
    def before(p: Any, g: Any, velocity: Any, damping: Any) -> Any:
        velocity = damping * velocity + g
        return velocity, velocity


class halved_update(Transform):
    @staticmethod
    def before(p: Any, g: Any) -> Any:
        return 3 * g

    @staticmethod
    def after(p: Any, new: Any, g: Any) -> Any:
        return p + (new - p) / 2


@pytest.mark.parametrize("examples", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_chains_agree_on_all_engines(examples: int) -> None:
    chains = st.lists(st.sampled_from(ALL), unique=True, max_size=4)
    chosen = given(chains, st.sampled_from(NAMES), st.booleans())
    settings(max_examples=examples)(chosen(check_on_all_engines))()


def check_on_all_engines(chain: list[Any], name: str, maximize: bool) -> None:
    runs = []
    for engine in ENGINES.values():
        params = parameters(["matrix", "vector", "channels_last"], torch.float64)
        transforms = [make() for make in chain]
        optimizer = ours(name)(params, lr=0.05, maximize=maximize, transforms=transforms, **engine)
        for step in range(4):
            set_gradients(step, params)
            optimizer.step()
        runs.append((params, optimizer))
    [(reference, other), *rest] = runs
    for params, optimizer in rest:
        assert_same(params, reference, optimizer, other)


@every_engine
def test_it_is_one_kernel(engine: dict[str, Any], request: pytest.FixtureRequest) -> None:
    params = parameters(["matrix", "vector"])
    transforms = [make() for make in ALL if make().name != "skip_nonfinite"]
    optimizer = oc.AdamW(params, transforms=transforms, **engine)
    set_gradients(0, params)
    optimizer.step()
    used = engines_used(optimizer)
    kind = next(name for name, asked in ENGINES.items() if asked == engine)
    assert used[kind] == 2 or len(used["eager"]) == 2 or kind == "eager", used


@every_engine
def test_your_own_with_a_state_and_with_both_sides(engine: dict[str, Any]) -> None:
    mine, reference = parameters(["matrix"], torch.float64), parameters(["matrix"], torch.float64)
    optimizer = oc.SGD(mine, lr=0.1, transforms=[momentum(0.9), halved_update()], **engine)
    other = torch.optim.SGD(reference, lr=0.15, momentum=0.9)
    for step in range(4):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    torch.testing.assert_close(mine[0], reference[0], rtol=1e-12, atol=1e-12)
    velocity = other.state[reference[0]]["momentum_buffer"]
    torch.testing.assert_close(optimizer.state[mine[0]]["velocity"], velocity, rtol=1e-12, atol=1e-12)


class Signs(oc.ElementwiseOptimizer):
    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * xp.sign(g)


class DecayedSigns(Signs):
    """The transforms of a class, for a constructor that does not take any."""

    transforms = (decoupled_decay(0.5),)


@every_engine
def test_those_of_a_class(engine: dict[str, Any]) -> None:
    param = torch.nn.Parameter(torch.tensor([2.0, -2.0]))
    optimizer = DecayedSigns([{"params": [param], **engine}])
    param.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    torch.testing.assert_close(param, torch.tensor([2.0 - 0.1 - 0.1, -2.0 - 0.1 + 0.1]))


def test_without_transforms_nothing_is_there() -> None:
    params = parameters(["vector"])
    optimizer = oc.Adam(params, transforms=[])
    assert {"rule", "states", "coefficients", "optional_states"}.isdisjoint(vars(optimizer))
    assert (
        optimizer.state_dict()["param_groups"]
        == torch.optim.Adam(parameters(["vector"])).state_dict()["param_groups"]
    )


class backwards(Transform):
    @staticmethod
    def before(g: Any, p: Any) -> Any:
        return g


class bound(Transform):
    def before(self, p: Any, g: Any) -> Any:
        return g


class idle(Transform):
    pass


class own_average(Transform):
    states = ("exp_avg",)

    @staticmethod
    def before(p: Any, g: Any, exp_avg: Any) -> Any:
        return g, exp_avg


class own_rate(Transform):
    def __init__(self) -> None:
        super().__init__(lr=1.0)

    @staticmethod
    def before(p: Any, g: Any, lr: Any) -> Any:
        return lr * g


class default(Transform):
    @staticmethod
    def before(p: Any, g: Any, factor: Any = 2.0) -> Any:
        return factor * g


class writes(Transform):
    @staticmethod
    def before(p: Any, g: Any) -> Any:
        g *= 2
        return g


class forgets(Transform):
    states = ("kept",)

    @staticmethod
    def before(p: Any, g: Any, kept: Any) -> Any:
        return g


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([backwards()], r"backwards.before takes \(g, p\), expected to begin with \(p, g\)"),
        ([bound()], "bound.before is a function, expected a @staticmethod"),
        ([idle()], r"idle has neither before\(\) nor after\(\)"),
        ([own_average()], "own_average keeps a state 'exp_avg', but Adam has one"),
        ([own_rate()], "own_rate has an option 'lr', but so has Adam"),
        ([default()], "default.before has a default for 'factor'"),
        ([writes()], "Adam with writes.rule writes into its argument g"),
        ([forgets()], "goes through the elements"),
        ([clip_value(1.0), clip_norm(1.0), clip_value(2.0)], "has an option 'clip_value'"),
        ([idle], r"a type.*expected transforms: call it, idle\(...\)"),
        (clip_value(1.0), r"transforms is a clip_value.*expected a list"),
        (["clip"], "a str, 'clip' among the transforms"),
    ],
)
def test_mistakes_are_named(transforms: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        oc.Adam(parameters(["vector"]), transforms=transforms)


def test_a_rule_that_forgets_a_state_is_told_so() -> None:
    class Forgets(Signs):
        states = ("kept",)
        transforms = (ema(),)

        @staticmethod
        def rule(p: Any, g: Any, kept: Any, lr: Any) -> Any:
            return p, kept, kept

    params = parameters(["vector"])
    set_gradients(0, params)
    with pytest.raises(TypeError, match="returned 3 values"):
        Forgets(params).step()


def test_the_programs_of_the_page_run() -> None:
    """docs/transforms.md, one after the other."""
    text = (ROOT / "docs" / "transforms.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    model = torch.nn.Linear(3, 2)
    names: dict[str, Any] = {"model": model, "Lion": Lion}
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    for optimizer in (
        names["CautiousLion"](model.parameters()),
        oc.Adam(model.parameters(), transforms=[names["noise_floor"](0.5)]),
    ):
        model.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
