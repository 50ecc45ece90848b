"""One formula, every machine: the arithmetic of an update stands once, and every engine follows it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import torchopt_course as oc

from ..helpers import NAMES, engines_used, every_engine, ours, parameters, set_gradients

PACKAGE = Path(oc.__file__).parent


def swapped(cls: type[oc.ElementwiseOptimizer]) -> Any:
    """A rule with the optimizer's own signature and another formula: p - 3 (g + p), states plus one."""
    states = (*cls.states, *cls.optional_states)
    names = list(inspect.signature(cls.rule).parameters)
    results = ", ".join(["p - 3 * (g + p)", *(f"None if {s} is None else {s} + 1" for s in states)])
    namespace: dict[str, Any] = {}
    exec(f"def rule({', '.join(names)}):\n    return {results}", namespace)
    return staticmethod(namespace["rule"])


@every_engine
@pytest.mark.parametrize("name", NAMES)
def test_every_engine_follows_a_swapped_rule(
    name: str, engine: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in mid-run: the optimizer has stepped with its own rule before."""
    params = parameters(["vector", "matrix"])
    optimizer = ours(name)(params, **engine)
    set_gradients(0, params)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    states = [{k: v.clone() for k, v in optimizer.state[param].items() if k != "step"} for param in params]

    monkeypatch.setattr(type(optimizer), "rule", swapped(type(optimizer)))
    optimizer.step()

    for param, old, state in zip(params, before, states, strict=True):
        assert param.grad is not None
        torch.testing.assert_close(param.detach(), old - 3 * (param.grad + old))
        for key, value in state.items():
            torch.testing.assert_close(optimizer.state[param][key], value + 1)
    assert bool(engines_used(optimizer)["cpu"]) == bool(engine.get("fused"))


def test_engines_hold_no_arithmetic_of_an_update() -> None:
    """No engine, and not the base class either, takes a root or knows an optimizer or a state by name."""
    words = {
        "words.py",
        "scalars.py",
        "blocks.py",
        "triton.py",
        "lists.py",
        "tensors.py",
        "update.py",
        "wide.py",
        "arithmetic.py",
        "namespace.py",
        "reductions.py",
    }
    # What numbers and tensors can do at all, norms of several among it.
    words |= {"number_program.py", "number_recorder.py", "frame.py", "numbers.py", "register_code.py"}
    words |= {"several.py", "search.py", "growth.py"}
    engines = [path for path in (PACKAGE / "engines").rglob("*.py") if path.name not in words]
    general = [*engines, PACKAGE / "optimizer.py", PACKAGE / "declared.py"]
    assert len(general) >= 8
    states = {name for cls in map(oc.__dict__.get, NAMES) for name in (*cls.states, *cls.optional_states)}  # type: ignore[union-attr]
    assert {"exp_avg", "sum", "momentum_buffer"} <= states
    forbidden = {"sqrt", "lerp", "addcmul", "addcdiv", "lerp_", "addcdiv_", "betas", *states, *NAMES} - {
        "sum"
    }
    for path in general:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        words |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()
        }
        usual = {"betas"} if path.name == "optimizer.py" else set()  # an option whose range the base checks
        assert not words & forbidden - usual, path


@pytest.mark.parametrize("name", NAMES)
def test_rules_run_as_they_stand_on_torch_tensors(name: str) -> None:
    """``import torch as xp``: the slide is an executable function of tensors."""
    cls = type(ours(name)(parameters(["vector"])))
    optimizer = ours(name)(parameters(["vector"]), lr=0.1, fused=False)
    group = optimizer.param_groups[0]
    coefficients = optimizer._coefficients_after(group)(0)
    p, g = torch.randn(7), torch.randn(7)
    states = [torch.zeros(7) for _ in optimizer._kept_states(group)]
    absent = [None] * (len(cls.states) + len(cls.optional_states) - len(states))
    result = cls.rule(p, g, *states, *absent, **coefficients)
    assert result[0].shape == p.shape
    assert not torch.equal(result[0], p)
