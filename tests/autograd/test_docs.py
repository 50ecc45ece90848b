"""docs/autograd.md: its programs run, print what it shows, and draw its picture."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ..helpers import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "autograd.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


def test_every_program_runs_and_prints_what_is_shown(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = 0
    for language, code in BLOCKS:
        if language == "python":
            exec(code, names)
            printed = capsys.readouterr().out
        elif language == "":
            assert printed == code
            shown += 1
    assert shown == 1
    assert (tmp_path / "graph.svg").read_text() == (DOCS / "images" / "graph.svg").read_text()
    names["autograd"].PRIMITIVES.pop("erfcx", None)


def test_the_benchmark_s_figures_are_those_of_the_committed_table():
    results = (ROOT / "benchmarks" / "results" / "gradient_checks.md").read_text(encoding="utf-8")
    found, alarms = [re.findall(r"\d+", line) for line in results.splitlines() if line.startswith("| all ")]
    rows = {
        what: (number, cells.split("|"))
        for what, number, cells in re.findall(
            r"^\| (mistakes found|false alarms), of (\d+) \|(.*)\|$", TEXT, re.M
        )
    }
    for what, counted in (("mistakes found", found), ("false alarms", alarms)):
        number, cells = rows[what]
        assert [number, *(cell.strip() for cell in cells)] == counted
