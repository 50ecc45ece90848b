"""docs/from_paper_to_optimizer.md: its programs run one after the other, and what it says of them holds."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from recipes import zoo
from torchopt_course import testing

from ...helpers import ROOT, some_or_all_of_the_kit

PAGE = ROOT / "docs" / "from_paper_to_optimizer.md"


@some_or_all_of_the_kit
def test_the_page_runs(kit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(testing, "assert_optimizer_agrees", kit)
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    [shown] = re.findall(r"print\(optimizer\.engine_report\(\)\)  # (.*)", text)
    assert capsys.readouterr().out.strip() == shown
    for wrong in ({"betas": (0.9, 1.5)}, {"eps": -1.5}, {"warmup": -1.5}, {"weight_decay": -1.5}):
        with pytest.raises(ValueError, match=r"1\.5"):
            names["LAMBWithWarmup"]([torch.zeros(2, requires_grad=True)], **wrong)
    assert_same_as_the_zoos(names["LAMB"])
    assert_same_as_the_zoos(names["LAMBWithWarmup"])


def assert_same_as_the_zoos(lamb: Any) -> None:
    ends = []
    for cls in (lamb, zoo.LAMB):
        weights = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
        optimizer = cls([weights], lr=0.1)
        for step in range(20):
            weights.grad = torch.sin(weights.detach() * (step + 1))
            optimizer.step()
        ends.append(weights.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


def test_its_links_lead_somewhere() -> None:
    for page in (PAGE, ROOT / "docs" / "zoo.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), link
