"""What the README shows runs, and is what the repository holds."""

from __future__ import annotations

import inspect
import re

import torchopt_course as oc

from .helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_your_own_optimizer_runs_as_shown() -> None:
    [block] = [block for block in BLOCKS if "class Lion" in block]
    names: dict[str, object] = {}
    exec(block, names)
    optimizer = names["optimizer"]
    assert isinstance(optimizer, oc.ElementwiseOptimizer)
    assert not optimizer._plans[0].reasons, "it runs fused"


def test_slide_is_the_code() -> None:
    [block] = [block for block in BLOCKS if "exp_avg_sq, max_exp_avg_sq, step_size" in block]
    shown = [line.strip() for line in block.splitlines()[1:]]
    code = [line.strip() for line in inspect.getsource(oc.Adam.rule).splitlines()]
    assert "\n".join(shown) in "\n".join(code)
