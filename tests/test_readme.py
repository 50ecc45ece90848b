"""What the README shows runs, and is what the repository holds."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

import torchopt_course as oc
from torchopt_course import testing

from .helpers import ROOT, some_or_all_of_the_kit

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@some_or_all_of_the_kit
def test_your_own_optimizer_runs_as_shown(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "assert_optimizer_agrees", kit)
    [block] = [block for block in BLOCKS if "class Lion" in block]
    names: dict[str, object] = {}
    exec(block, names)
    optimizer = names["optimizer"]
    assert isinstance(optimizer, oc.ElementwiseOptimizer)
    assert not optimizer._stepper.groups[0].reasons, "it runs fused"
    [check] = [block for block in BLOCKS if "assert_optimizer_agrees" in block]
    exec(check, names)


def test_autograd_block_writes_the_gradients_as_torch() -> None:
    [block] = [block for block in BLOCKS if "autograd.record" in block]
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(block.replace("optimizer.step()", ""), names)
    model = names["model"]
    mine = [param.grad.clone() for param in model.parameters()]
    model.zero_grad()
    cross_entropy(model(torch.ones(5, 4)), torch.tensor([0, 1, 2, 0, 1])).backward()
    for grad, param in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(grad, param.grad)


def test_slide_is_the_code() -> None:
    [block] = [block for block in BLOCKS if "exp_avg_sq, max_exp_avg_sq, step_size" in block]
    shown = [line.strip() for line in block.splitlines()[1:]]
    code = [line.strip() for line in inspect.getsource(oc.Adam.rule).splitlines()]
    assert "\n".join(shown) in "\n".join(code)
