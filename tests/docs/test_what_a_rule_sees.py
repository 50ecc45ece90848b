"""docs/what_a_rule_sees.md: its programs print what it says, its list of functions is that of the kernels."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from torchopt_course import ElementwiseOptimizer, xp
from torchopt_course.engines.rule.words import REDUCTIONS_OF_LINES, TENSORS

from ..helpers import ROOT

PAGE = ROOT / "docs" / "what_a_rule_sees.md"
TEXT = PAGE.read_text(encoding="utf-8")
# What the reader of a rule says itself: numbers as tensors, true and false as numbers.
INNER = {"fill", "real"}


def test_the_programs_print_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, names)
        for said in re.findall(r"^after_a_step\(.*\)  # (.*)$", block, re.MULTILINE):
            assert said in capsys.readouterr().out.splitlines()


def listed() -> list[str]:
    table = TEXT.split("| | |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines() if not line.startswith("| operators")]
    return re.findall(r"`(\w+)`", "\n".join(rows))


TWO = ("maximum", "minimum", "add", "sub", "mul", "div", "pow", "dot", "lt", "le", "gt", "ge", "eq", "ne")
ARGUMENTS = {
    **dict.fromkeys(TWO, "p, g"),
    **dict.fromkeys(("any", "all", "logical_not"), "g > 0"),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), "g > 0, p > 0"),
    "where": "g > 0, p, g",
    "clamp": "g, -1, 1",
    "full_like": "p, 2.0",
}


def words_of(name: str) -> set[str]:
    """The words with which a rule that calls this function is written down."""
    names: dict[str, Any] = {"xp": xp}
    exec(f"def rule(p, g, lr):\n    return 0 * p + xp.{name}({ARGUMENTS.get(name, 'p')})", names)

    class Calling(ElementwiseOptimizer):
        rule = staticmethod(names["rule"])

        @staticmethod
        def coefficients(lr: Any) -> Any:
            return {"lr": lr}

    optimizer = Calling([torch.nn.Parameter(torch.ones(3))], {"lr": 0.1})
    (specialization,) = optimizer._parsed_rule._variants.values()
    assert specialization.program is not None, f"{name}: {specialization.reason}"
    return {line.word for line in specialization.program.lines}


def test_the_list_is_that_of_the_kernels() -> None:
    names = listed()
    assert len(names) == len(set(names)) > 50
    assert set().union(*map(words_of, names)) | INNER >= TENSORS.keys() - REDUCTIONS_OF_LINES


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (PAGE.parent / link).exists(), link
    headings = {re.sub(r"\W+", "-", line[3:].lower()) for line in re.findall(r"^## .*$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
