"""Formulas with reductions, made by lot: nobody would write them, and every engine must compute them."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st

Strategy = st.SearchStrategy[str]
_NUMBERS = st.sampled_from(["lr", "0.5", "-1.5", "2"])


def formulas(reductions: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str]]:
    """The new ``p`` and the new ``m`` of a rule of ``p, g, m, lr``.

    Args:
        reductions: what makes a number of a tensor, whose place is ``{}``.
    """
    return st.tuples(
        _said(("p - 0.1 * xp.tanh({} * {})",), _reduced(2, reductions), _elements(1, reductions)),
        _said(("xp.tanh({} - {})",), _elements(1, reductions), _reduced(1, reductions)),
    )


def rule_of(formula: tuple[str, str]) -> Callable[..., Any]:
    """A formula as a function whose source can be looked up."""
    source = f"def rule(p, g, m, lr):\n    return {formula[0]}, {formula[1]}\n"
    file = f"<formula {hash(source):x}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    names: dict[str, Any] = {"xp": torch}
    exec(compile(source, file, "exec"), names)
    rule: Callable[..., Any] = names["rule"]
    return rule


def _said(templates: tuple[str, ...], *parts: Strategy) -> Strategy:
    return st.builds(lambda template, *values: template.format(*values), st.sampled_from(templates), *parts)


@cache
def _elements(depth: int, reductions: tuple[str, ...]) -> Strategy:
    """Something for each element."""
    leaf = st.sampled_from(["p", "g", "m"])
    if not depth:
        return leaf
    element, number = _elements(depth - 1, reductions), _reduced(depth - 1, reductions)
    return st.one_of(
        leaf,
        _said(("({} * {})", "({} + {})", "({} / (1 + xp.abs({})))", "xp.maximum({}, {})"), element, element),
        _said(
            ("({} * {})", "({} - {})", "xp.minimum({1}, {0})", "({0} / (1 + xp.abs({1})))"), number, element
        ),
        _said(("({} - {})", "xp.maximum({}, {})", "xp.clamp({}, max={})"), element, number),
        _said(("({} + {} * {})", "({} - lr * {} * {})"), element, number, element),
        _said(("xp.where({} > {}, {}, {})",), element, number, element | number, element),
    )


@cache
def _reduced(depth: int, reductions: tuple[str, ...]) -> Strategy:
    """A number of whole tensors."""
    reduction = _said(reductions, _elements(depth, reductions))
    if not depth:
        return reduction
    number = _reduced(depth - 1, reductions)
    return st.one_of(
        reduction,
        _said(("({} + {})", "({} - {})"), number, number | _NUMBERS),
        _said(("({} / (1 + xp.abs({})))", "xp.where(xp.isfinite({}), {}, 0.3)"), number, number),
        _said(("xp.where({} > {}, {}, 0.5)", "xp.maximum({}, {} + {})"), number, number, number),
        _said(("xp.sqrt(xp.abs({}))",), number),
    )
