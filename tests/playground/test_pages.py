"""What can be on the page, what is refused by name, and the command that writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch as xp

from torchopt_course import ElementwiseOptimizer
from torchopt_course.engines.rule.number_program import COMPARISONS, WORDS
from torchopt_course.engines.rule.words import REDUCTIONS, REDUCTIONS_OF_LINES, TENSORS
from torchopt_course.playground import javascript, page
from torchopt_course.playground.__main__ import main
from torchopt_course.playground.optimizers import Optimizer, PlaygroundError
from torchopt_course.transforms import clip_value

from ..browser import Browser
from ..helpers import ROOT

pytest.importorskip("sympy")


class Base(ElementwiseOptimizer):
    states: Any = ()

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


def made(**declared: Any) -> Any:
    """A class of a user's."""
    return type("Mine", (Base,), {k: staticmethod(v) if callable(v) and k != "__init__" else v
                                  for k, v in declared.items()})  # fmt: skip


def test_every_word_has_javascript() -> None:
    elementwise = {*TENSORS} - REDUCTIONS - REDUCTIONS_OF_LINES
    assert {*elementwise, *WORDS, *COMPARISONS} <= javascript.WORDS.keys()


def unread(step: Any, lr: Any) -> Any:
    return {"lr": round(lr, 3)}


def of_the_whole(p: Any, g: Any, lr: Any) -> Any:
    return p - lr * g / xp.linalg.vector_norm(g)


def without_word(p: Any, g: Any, lr: Any) -> Any:
    return p - lr * xp.erf(g)


REFUSED: dict[str, tuple[Any, str]] = {
    "torch's": (torch.optim.Adam, "Adam is no subclass of torchopt_course.ElementwiseOptimizer"),
    "no class": (3, "3 is no subclass"),
    "with transforms": (made(transforms=(clip_value(1.0),)), "Mine has transforms"),
    "not elementwise": (made(rule=of_the_whole), "makes a number of a whole tensor, by norm()"),
    "without a word": (made(rule=without_word), "Mine.rule calls torch.erf(), which is not on the list"),
    "not read": (made(coefficients=unread), "Mine.coefficients asks a number for __round__"),
    "no default": (
        type("Mine", (Base,), {"__init__": lambda self, params, lr: Base.__init__(self, params, lr)}),
        "Mine(params)",
    ),
    "odd state": (
        type("Mine", (Base,), {
            "states": ("s",), "rule": staticmethod(lambda p, g, s, lr: (p - lr * s, s + g)),
            "initial_state": lambda self, name, param, group: 2 * param.detach(),
        }), "Mine.initial_state makes 's' of more than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_on_the_page_is_refused_by_name(case: str) -> None:
    cls, message = REFUSED[case]
    with pytest.raises(PlaygroundError) as caught:
        Optimizer(cls).text()
    assert message in str(caught.value)


def test_a_word_without_javascript_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(javascript.WORDS, "mul")
    with pytest.raises(
        PlaygroundError, match=r"Mine\.rule uses mul, for which the playground has no JavaScript"
    ):
        Optimizer(made())


LANDSCAPE = """{view: [0, 1, 0, 1], lowest: 0, height: (x, y) => x * x + y * y,
  slope: (x, y) => [2 * x - y, y + Math.sin(x)]}"""


def radams(step: Any, lr: Any, betas: Any) -> Any:
    """Liu et al., 2020: another formula as long as the variance is not known."""
    bound = 2 / (1 - betas[1]) - 1
    rho = bound - 2 * step * betas[1] ** step / (1 - betas[1] ** step)
    rectified = rho > 5
    scale = math.sqrt((rho - 4) * (rho - 2) * bound / ((bound - 4) * (bound - 2) * rho)) if rectified else 1.0
    return {
        "lr": lr * scale,
        "rectified": rectified,
        "warm": lr * min(step / 30, 1.0),
        "on": math.floor(step / 40) < 1,
    }


class RAdam(Base):
    states = ("average", "anchor")

    def __init__(self, params: Any, lr: float = 0.1, betas: Any = (0.9, 0.99)) -> None:
        ElementwiseOptimizer.__init__(self, params, {"lr": lr, "betas": betas})

    def initial_state(self, name: str, param: Any, group: Any) -> Any:
        return param.detach().clone() if name == "anchor" else super().initial_state(name, param, group)

    coefficients = staticmethod(radams)

    @staticmethod
    def rule(p: Any, g: Any, average: Any, anchor: Any, lr: Any, rectified: Any, warm: Any, on: Any) -> Any:
        average = average + 0.1 * (g - average)
        p = p - (lr if rectified else warm) * xp.tanh(average) + (0.01 * (anchor - p) if on else 0.0)
        return p, average, xp.where(xp.abs(g) > 1, anchor, p)


# All words of a rule in one.
def wordy(p: Any, g: Any, s: Any, lr: Any) -> Any:
    a = xp.sqrt(xp.abs(g)) + xp.rsqrt(1 + xp.square(g)) + xp.reciprocal(2 + xp.cos(g)) + xp.exp(-xp.abs(g))
    b = xp.log(1 + g * g) + xp.sin(p) + xp.tanh(g) + xp.sigmoid(p) + xp.floor(p) + xp.ceil(g) + xp.sign(g)
    c = xp.maximum(a, b) - xp.minimum(a, b) + xp.clamp(p, -0.5, 0.75) + xp.abs(p) ** 1.5
    d = xp.where((g > 0) & (p <= 1) | ~(p == g) ^ (a >= b) & (a < b) | (p != 2), a, b)
    return p - lr * (c + d) / 100 - 0.001 * (g > 0), s + xp.ones_like(p) * lr


class Wordy(Base):
    states = ("s",)
    rule = staticmethod(wordy)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [RAdam, Wordy])
def test_any_rule_and_any_choice(cls: Any, browser: Browser) -> None:
    """What the page computes for one number, against the eager engine."""
    texts = f"const LANDSCAPES = [], WALKING = []; const OPTIMIZERS = [{Optimizer(cls).text()}];"
    folder = ROOT / "torchopt_course" / "playground" / "page"
    scripts = "".join((folder / name).read_text() for name in ("numbers.js", "walk.js"))
    browser.show(f"<html><script>{texts}{scripts}</script></html>")
    start = [0.3, -1.7]
    found = browser.run(f"""
    const optimizer = OPTIMIZERS[0], landscape = {LANDSCAPE}, start = {json.dumps(start)};
    const options = Object.fromEntries(optimizer.sliders.map(({{key, value}}) => [key, value]));
    return walk({{optimizer, options, landscape, start, steps: 100}});
    """)
    assert found["stopped"] == ""
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = cls([point])
    optimizer.param_groups[0]["fused"] = False
    for k in range(100):
        x, y = point.detach()
        point.grad = torch.stack([2 * x - y, y + torch.sin(x)])
        optimizer.step()
        assert point.tolist() == pytest.approx(
            [found["x"][k + 1], found["y"][k + 1]], rel=1e-12, abs=1e-12
        ), k


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import torch as xp\nfrom torchopt_course import ElementwiseOptimizer\n"
        "class SignDescent(ElementwiseOptimizer):\n"
        "    '''Only the signs count. </script><!--'''\n"
        "    def __init__(self, params, lr=0.01):\n        super().__init__(params, {'lr': lr})\n"
        "    @staticmethod\n    def coefficients(lr):\n        return {'lr': lr}\n"
        "    @staticmethod\n    def rule(p, g, lr):\n        return p - lr * xp.sign(g)\n",
        encoding="utf-8",
    )
    output = tmp_path / "page.html"
    monkeypatch.chdir(tmp_path)
    main(["SignDescent", "--output", str(output)])
    text = output.read_text(encoding="utf-8")
    assert output.resolve().as_uri() in capsys.readouterr().out
    assert 'WALKING = ["SGD", "SignDescent"]' in text
    assert text.count("</script>") == 1
    assert "Math.sign(g)" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for name, message in {
        "Nothing": "a class Nothing is in no Python file of this folder, and none of ours (SGD, ",
        f"{mine}:Other": "has no 'Other'",
        "no_module_at_all:X": "No module named",
        "torch.optim:Muon": "Muon is no subclass",
        f"{tmp_path / 'none.py'}:X": "there is no file",
    }.items():
        with pytest.raises(SystemExit) as caught:
            main([name, "--output", str(output)])
        assert caught.value.code == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path / "nowhere" / "page.html")])
    assert "nowhere" in capsys.readouterr().err


def test_two_classes_of_one_name() -> None:
    text = page([type("Adam", (Base,), {})])
    assert 'WALKING = ["SGD", "Adam of tests.playground.test_pages"]' in text
