"""The comparison with other packages: who computes something else is told, who cannot take part skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.machine import this_machine
from benchmarks.peer import PEERS, Parameters, Peer, difference_from_torch, measure
from benchmarks.peers import PeersReport, main, markdown, read
from benchmarks.timing import Call, Pace

FUSED = PEERS["torch fused"]


def _adam(params: Parameters, lr: float) -> Call:
    return torch.optim.Adam(params, lr=lr, weight_decay=1e-2).step


def test_same_numbers_are_told_from_others() -> None:
    assert difference_from_torch(FUSED) < peers.SAME
    assert difference_from_torch(Peer("other decay", "torch", _adam)) > 1e-3


def test_peer_and_ours_take_turns_on_the_same_parameters() -> None:
    found = measure(FUSED, "mlp", 1, Pace(0, least_rounds=3))
    assert (found.peer, found.model, found.threads) == ("torch fused", "mlp", 1)
    assert torch.__version__.startswith(found.version)
    assert found.difference < peers.SAME
    assert found.first_step > 0
    for spread in (found.peers, found.ours, found.ratio):
        assert 0 < spread.lower <= spread.median <= spread.upper


def test_command_line_measures_in_a_fresh_process_and_keeps_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measure(FUSED, "mlp", 1, Pace(0, least_rounds=3))
    skipped = "GPT-2 small: DeepSpeed CPUAdam"
    report = PeersReport(this_machine(), {"ResNet-18: torch fused": before}, {skipped: "no g++"})
    (tmp_path / "peers.json").write_text(report.as_json())
    main(["--only", "MLP fused", "--seconds", "0.01", "--threads", "1", "--out", str(tmp_path)])
    after = read(tmp_path / "peers.json")
    assert list(after.measured) == [
        "MLP 784-256-10: torch fused",
        "ResNet-18: torch fused",
    ]  # the order of the models
    assert after.skipped == {skipped: "no g++"}
    assert (tmp_path / "peers.md").read_text() == markdown(after)
    assert "AdamW alone, MLP 784-256-10, 1 thread" in capsys.readouterr().out

    # A package that is missing, and one that takes its process with it.
    answers = iter([(0, '{"skipped": "not installed"}\n'), (-11, "")])

    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        code, output = next(answers)
        return subprocess.CompletedProcess(command, code, stdout=output, stderr="oh")

    monkeypatch.setattr(subprocess, "run", fake)
    main(["--only", "MLP fused", "MLP heavyball", "--out", str(tmp_path)])
    assert read(tmp_path / "peers.json").skipped == {
        skipped: "no g++",
        "MLP 784-256-10: torch fused": "not installed",
        "MLP 784-256-10: heavyball": "its process ended with -11: oh",
    }
    assert list(read(tmp_path / "peers.json").measured) == ["ResNet-18: torch fused"]
    assert "- MLP 784-256-10: heavyball: its process ended" in (tmp_path / "peers.md").read_text()
