"""The same optimizers in several languages are the same optimizers, and the page says what was measured."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest

from benchmarks.languages import __main__ as command
from benchmarks.languages.measured import LANGUAGES, OPTIMIZERS, difference, lines


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("language", ["plain torch", "optax"])
def test_all_of_them_take_the_same_steps(language: str, optimizer: str) -> None:
    pytest.importorskip(LANGUAGES[language].distribution)
    assert difference(language, optimizer) < 1e-4


def test_the_page_has_what_was_measured() -> None:
    page = command.PAGE.read_text(encoding="utf-8")
    found = json.loads(command.RESULTS.read_text())
    assert command.MARKS.rewritten(page, "").count("measured") == page.count("measured"), (
        "both marks are there"
    )
    rows = re.findall(r"^\| (\w+) +\| ([\w. ]+?) +\| +(\d+) \|", page, re.MULTILINE)
    assert rows
    for optimizer, language, count in rows:
        if language not in ("optax", "heavyball") or installed(language):
            assert lines(language, optimizer) == int(count), (language, optimizer)
        assert language == command.OURS or any(
            key.startswith(f"{language} {optimizer} ") and each["lines"] == int(count)
            for key, each in found.items()
        )


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
