"""What looks like a mistake in a class of yours and is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torchopt_course import ElementwiseOptimizer

from .mine import parameter, with_changes


def of_many_arguments(states: int, numbers: int) -> type[ElementwiseOptimizer]:
    s, c = [f"s{i}" for i in range(states)], [f"c{i}" for i in range(numbers)]
    source = f"def rule(p, g, {', '.join(s + c)}):\n    return p - ({' + '.join(c)}) * g"
    source += "".join(f", {name} + {i} * g" for i, name in enumerate(s))
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return with_changes(states=tuple(s), rule=namespace["rule"], coefficients=lambda lr: dict.fromkeys(c, lr))


def test_many_arguments() -> None:
    for engine in ({"fused": True}, {"foreach": True}, {"fused": False}):
        param = parameter()
        optimizer = of_many_arguments(40, 40)([param], **engine)
        optimizer.step()
        assert param.tolist() == [1 - 40 * 0.5] * 3
        assert optimizer.state[param]["s39"].tolist() == [39.0] * 3


def by_keyword(p: Any, g: Any, m: Any, *, lr: Any) -> Any:
    return p - lr * g, m


def with_temporaries(p: Any, g: Any, m: Any, lr: Any) -> Any:
    step = lr * g
    step *= 2
    also = step
    also -= g
    lr += 1
    return p - step + lr - 1.5, m


@pytest.mark.parametrize("engine", [{"fused": True}, {"foreach": True}, {"fused": False}], ids=str)
def test_correct_though_unusual(engine: dict[str, bool]) -> None:
    """Coefficients by keyword, += on values of the rule's own, numbers as new states, states in a list."""
    for rule, expected in {
        by_keyword: (0.5, 0.0),
        with_temporaries: (1.0, 0.0),
        lambda p, g, m, lr: (p - lr, 7.0): (0.5, 7.0),
        lambda p, g, m, lr: [p - lr * g, g > 0]: (0.5, 1.0),
        lambda p, g, m, lr: (0, lr): (0.0, 0.5),
    }.items():
        param = parameter()
        optimizer = with_changes(rule=rule)([param], **engine)
        optimizer.step()
        assert (param[0].item(), optimizer.state[param]["m"][0].item()) == expected


class Memoryless(ElementwiseOptimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @staticmethod
    def coefficients(lr: float, first: bool) -> dict[str, Any]:
        return {"lr": lr, "first": first}

    @staticmethod
    def rule(p: Any, g: Any, lr: float, first: bool) -> Any:
        return p - lr * (2 * g if first else g)


def test_first_without_a_state_that_could_tell() -> None:
    with pytest.raises(TypeError, match=r"Memoryless\.coefficients asks for 'first', but .* no states"):
        Memoryless([nn.Parameter(torch.ones(2))])
