"""The recipe on one page."""

from __future__ import annotations

import ast
import gzip
import sys
from pathlib import Path

import pytest
import torch

from recipes import minimal

SCRIPT = Path(minimal.__file__)


def test_it_is_one_page_and_imports_torch_tensorboard_and_us_only() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported - sys.stdlib_module_names == {"torch", "torchopt_course"}
    block = "            optimizer.zero_grad()\n            loss = F.cross_entropy("
    assert block in text


def test_it_trains_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    dice = torch.Generator().manual_seed(0)

    def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = torch.randint(10, (300,), generator=dice)
        return 3.0 * torch.eye(784)[kinds] + 0.1 * torch.randn(300, 784, generator=dice), kinds

    monkeypatch.setattr(minimal, "load", load)
    monkeypatch.chdir(tmp_path)
    assert minimal.main(epochs=12, batch_size=32) > 0.9  # one bright pixel says it
    events = EventAccumulator("runs/minimal", size_guidance={"scalars": 0}).Reload()
    assert [point.step for point in events.Scalars("loss")] == list(range(120))
    assert len(events.Scalars("accuracy")) == 12


def test_it_downloads_what_is_not_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    images = bytes(16) + bytes(range(256)) * 49  # 16 pictures of 784 pixels
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (mirror / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes(range(16))))
    monkeypatch.setattr(minimal, "SOURCE", mirror.as_uri())
    monkeypatch.setattr(minimal, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        inputs, targets = minimal.load("train")
        assert inputs.shape == (16, 784)
        assert inputs[0, 255] == pytest.approx((1 - 0.286) / 0.353)
        assert targets.tolist() == list(range(16))
        for path in mirror.iterdir():
            path.unlink()  # the second time they lie in data/


def test_the_readme_shows_its_loop() -> None:
    readme = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("Its loop:\n\n```python\n")[1].split("```")[0]
    assert "\n".join(f"    {line}" for line in shown.splitlines()) in SCRIPT.read_text(encoding="utf-8")
