"""Standard output and error that are closed, full, or read by nobody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from recipes import train
from recipes.common.command_line import parse, plain_endings, progress_bar
from recipes.common.folder import read_json
from recipes.common.report import Claim, Report, Verdict, main

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def run(report: Report, size: str) -> None:
    """A claim that has nothing to compute."""
    report.finish("table", [{"a": 1}], Verdict("the claim", None, ""))


def into(stream: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["claim.py", *words])
    monkeypatch.setattr(sys, "stdout", stream.open("w"))


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_closed_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, name, None)  # Python's sign for one that was closed by >&-
    monkeypatch.setattr(sys, "argv", ["claim.py"])
    assert parse(Claim) == Claim()
    with progress_bar(1, "run") as bar:
        bar.update()
    with pytest.raises(SystemExit), plain_endings():
        raise OSError("a disk")


@needs_full
def test_an_outcome_that_nobody_takes_is_not_the_folders_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in ("computed", "finished before"):
        into(FULL, monkeypatch, "--size", "smoke", "--logdir", str(tmp_path))
        with pytest.raises(SystemExit) as stop:
            main(None, {"smoke": "small"}, run)
        assert stop.value.code == 1
        assert capsys.readouterr().err == "claim.py: [Errno 28] No space left on device\n"
        assert (read_json(tmp_path / "result.json") or {})["claim"] == "the claim"


@needs_full
@pytest.mark.parametrize("options", [Claim, train.Config])
def test_help_that_nobody_takes(
    options: type[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    into(FULL, monkeypatch, "--help")
    with pytest.raises(SystemExit) as stop:
        parse(options)
    said = capsys.readouterr().err
    assert (stop.value.code, said) == (1, "claim.py: [Errno 28] No space left on device\n")
