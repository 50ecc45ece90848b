"""Every optimizer of the zoo takes its paper's steps, and the table says what the code gives."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from recipes import zoo
from recipes.zoo import ZOO, AdEMAMix, NAdam
from recipes.zoo import __main__ as table
from torchopt_course import TensorOptimizer
from torchopt_course.testing import assert_optimizer_agrees

from ...helpers import every_engine
from . import papers

Shapes: TypeAlias = tuple[tuple[int, ...], ...]
STEPS = 60
SHAPES = ((), (7,), (5, 3), (0, 3), (301,))
MATRICES = ((4, 3), (3, 7), (4, 3), (1, 5))
# Of a matrix that is longer than wide only some eigenvectors are given by its gradients.
SQUARES = ((), (7,), (5, 5), (0, 3), (12, 12))
# The options with which the transcription of the paper is called.
PAPERS: dict[str, tuple[papers.Paper, dict[str, Any]]] = {
    "Lion": (papers.lion, {"lr": 1e-2, "weight_decay": 0.1}),
    "AdaBelief": (papers.adabelief, {"lr": 1e-2, "weight_decay": 0.1}),
    "NAdam": (papers.nadam, {"weight_decay": 0.1}),
    "Adan": (papers.adan, {"lr": 1e-2, "weight_decay": 0.1}),
    "ADOPT": (papers.adopt, {"lr": 1e-2, "weight_decay": 0.1}),
    "AdEMAMix": (papers.ademamix, {"lr": 1e-2, "weight_decay": 0.1, "warmup": 40}),
    "Yogi": (papers.yogi, {"weight_decay": 0.1}),
    "MADGRAD": (papers.madgrad, {}),
    "ScheduleFreeAdamW": (papers.schedule_free_adamw, {"weight_decay": 0.1, "warmup_steps": 10}),
    "LAMB": (papers.lamb, {}),
    "LARS": (papers.lars, {}),
    "StableAdamW": (papers.stable_adamw, {}),
    "Adafactor": (papers.adafactor, {"weight_decay": 0.1}),
    "SOAP": (papers.soap, {"lr": 3e-2, "every": 7}),
    "Muon": (papers.muon, {"lr": 0.02}),
}
SHAPES_OF = {"SOAP": SQUARES, "Muon": MATRICES}
# Their rules need a number of the whole tensor.
WITH_NORMS = ("LAMB", "LARS", "StableAdamW")


def parameters(shapes: Shapes = SHAPES) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def gradients(i: int, shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(i + 1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def train(
    make: Callable[[list[Parameter]], torch.optim.Optimizer], shapes: Shapes = SHAPES
) -> tuple[list[Parameter], Any]:
    params = parameters(shapes)
    optimizer: Any = make(params)
    for step in zip(*(gradients(i, shape) for i, shape in enumerate(shapes)), strict=True):
        for param, grad in zip(params, step, strict=True):
            param.grad = grad.clone()
        optimizer.step()
    getattr(optimizer, "eval", lambda: None)()
    return params, optimizer


def assert_within(mine: list[Parameter], theirs: list[Tensor], bound: float = 1e-9) -> None:
    for a, b in zip(mine, theirs, strict=True):
        if b.numel():
            assert (a - b).abs().max() <= bound * b.abs().max()


@pytest.mark.parametrize("name", PAPERS)
def test_the_steps_are_the_papers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "Muon":  # rounding would hide everything else
        monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    paper, options = PAPERS[name]
    shapes = SHAPES_OF.get(name, SHAPES)
    mine, optimizer = train(lambda params: getattr(zoo, name)(params, **options), shapes)
    expected = [param.detach().clone() for param in parameters(shapes)]
    for i, x in enumerate(expected):
        paper(x, gradients(i, shapes[i]))
    assert_within(mine, expected)
    whole = issubclass(getattr(zoo, name), TensorOptimizer)
    engine = "torch, whole tensors" if whole else "fused CPU engine"
    assert optimizer.engine_report().startswith(f"{engine}: {len(shapes)} parameters")


@pytest.mark.parametrize("name", WITH_NORMS)
@pytest.mark.parametrize(("weight", "grad"), [(0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_where_a_norm_is_zero(name: str, weight: float, grad: float) -> None:
    paper, options = PAPERS[name]
    expected, g = torch.full((3,), weight, dtype=torch.float64), torch.full((3,), grad, dtype=torch.float64)
    param = Parameter(expected.clone())
    optimizer = getattr(zoo, name)([param], **options)
    for _ in range(2):
        param.grad = g.clone()
        optimizer.step()
    paper(expected, [g, g])
    torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=0)


# torch counts some factors in float32.
@pytest.mark.parametrize("name", ["Rprop", "Adadelta", "Adamax", "RAdam", "NAdam"])
def test_the_steps_are_torchs(name: str) -> None:
    mine, _ = train(getattr(zoo, name))
    theirs, _ = train(lambda params: getattr(torch.optim, name)(params, foreach=False))
    assert_within(mine, [param.detach() for param in theirs])


# One that is elementwise and one of whole tensors in `make test`, all in `make test-slow`.
KINDS = ("ScheduleFreeAdamW", "SOAP")
KIT = [
    pytest.param(name, marks=() if name in KINDS else pytest.mark.slow)
    for name in (*PAPERS, "SAM", "Prodigy")
]
ASKED: dict[str, dict[str, Any]] = {
    "Muon": {"shapes": [(8, 8), (3, 5), (4, 4)]},
    "SOAP": {"shapes": [(8, 8), (7,), (2, 2), ()]},
    "SAM": {"coupled": True},
    "Prodigy": {"coupled": True},
}


@pytest.mark.parametrize("name", KIT)
def test_the_kit_has_nothing_to_say(name: str) -> None:
    make = getattr(zoo, name)
    if name == "Prodigy":  # in float16 the square of its usual d, 1e-6, is zero
        make = partial(make, d0=0.1)
    assert_optimizer_agrees(make, steps=4, **ASKED.get(name, {}))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("step", [1, 60, 5000, 10**9])
def test_nadam_multiplies_the_momenta_of_all_steps(step: int, beta: float) -> None:
    """Beyond some step the product is nothing: then nothing is computed any more."""
    mu = [beta * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t in (*range(1, min(step, 10_000) + 1), step + 1)]
    values = NAdam.coefficients(float(step), 1.0, (beta, 0.9), 1e-8, 0.0, 4e-3)
    assert values["along"] == pytest.approx(mu[-1] / (1 - math.prod(mu)), rel=1e-14)
    now = beta * (1 - 0.5 * 0.96 ** (step * 4e-3))
    assert values["afresh"] == pytest.approx((1 - now) / (1 - math.prod(mu[:-1])), rel=1e-14)


def test_ademamix_takes_warmup_up_to_its_end() -> None:
    of = {
        step: AdEMAMix.coefficients(float(step), 1.0, (0.9, 0.999, 0.9999), 5.0, 10, 1e-8, 0.0)
        for step in (9, 10, 11)
    }
    assert of[9]["size_slow"] == pytest.approx(4.5)
    assert of[10]["size_slow"] == of[11]["size_slow"] == 5.0
    assert of[10]["mix_slow"] == of[11]["mix_slow"] < of[9]["mix_slow"]


@every_engine
def test_schedule_free_weights_come_and_go(engine: dict[str, bool]) -> None:
    param = Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = zoo.ScheduleFreeAdamW([param], lr=0.1)
    optimizer.param_groups[0].update(engine)
    optimizer.eval()  # before the first step, too
    optimizer.train()
    for _ in range(3):
        param.grad = param.detach().clone()
        optimizer.step()
    trained = param.detach().clone()
    optimizer.eval()
    optimizer.eval()
    averaged = param.detach().clone()
    torch.testing.assert_close(trained, 0.9 * averaged + 0.1 * optimizer.state[param]["z"])
    with pytest.raises(RuntimeError, match=r"optimizer\.train\(\) before step"):
        optimizer.step()
    assert torch.equal(param, averaged)
    assert optimizer.state[param]["step"] == 3
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.train()
    torch.testing.assert_close(param.detach(), trained)
    optimizer.step()
    assert not torch.equal(param, trained)
    other = zoo.ScheduleFreeAdamW([Parameter(averaged.clone())])
    other.load_state_dict(saved)
    other.train()  # the checkpoint says that the weights were those for evaluation
    torch.testing.assert_close(other.param_groups[0]["params"][0].detach(), trained)


def test_sam_climbs_and_steps_from_where_it_was() -> None:
    def loss_of(points: list[Tensor]) -> Tensor:
        return (points[0].pow(4).sum() + (points[0][0] * points[1]).sin().sum()) / 3

    params = [
        Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)),
        Parameter(torch.ones(2, dtype=torch.float64)),
    ]
    plain = [param.detach().clone() for param in params]
    velocity = [torch.zeros_like(x) for x in plain]
    optimizer = zoo.SAM(params, lr=0.01, rho=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()
        return loss

    for _ in range(STEPS):
        before = loss_of(plain)
        returned = optimizer.step(closure)
        points = [x.clone().requires_grad_() for x in plain]
        g = torch.autograd.grad(loss_of(points), points)
        norm = torch.cat(g).square().sum().sqrt()
        climbed = [(x + 0.1 * gx / norm).requires_grad_() for x, gx in zip(plain, g, strict=True)]
        for x, v, gx in zip(plain, velocity, torch.autograd.grad(loss_of(climbed), climbed), strict=True):
            v.mul_(0.9).add_(gx)
            x -= 0.01 * v
        assert returned.item() == pytest.approx(before.item(), rel=1e-9)
    assert_within(params, plain)
    assert "fused CPU" in optimizer.engine_report()


def test_sam_leaves_the_weights_where_they_were_if_the_closure_fails() -> None:
    param = Parameter(torch.tensor([1.0, 2.0]))
    optimizer = zoo.SAM([param], lr=0.1)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step()
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ValueError("no data")
        param.grad = torch.ones(2)
        return param.sum()

    with pytest.raises(ValueError, match="no data"):
        optimizer.step(closure)
    assert param.tolist() == [1.0, 2.0]
    assert not optimizer.state


row_of = cache(table.row_of)


@pytest.mark.parametrize("cls", ZOO)
def test_the_table_says_what_the_code_gives(cls: type[Any]) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    row = row_of(cls)
    [line] = [line for line in page.splitlines() if line.startswith(f"| [`{row.name}`]")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == [f"[`{row.name}`](../{row.file})", str(row.of_rule), str(row.lines), row.engine]
    assert re.fullmatch(r"\d+\.\d", cells[4]), "measured"
    assert cells[-1] == row.source
    assert re.search(r"\d{4}", row.source), "a year"


def test_the_table_has_nobody_else_and_the_honest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    [measured_with] = re.findall(r"torch ([\d.]+)\. Larger", page)
    monkeypatch.setattr(torch, "__version__", measured_with)
    rows = [row_of(cls) for cls in ZOO]
    assert re.findall(r"^\| \[`(\w+)`\]", page, re.M) == [row.name for row in rows]
    assert page == table.page_of(rows, [table.known_ratios(table.PAGE)[row.name] for row in rows])


@pytest.mark.parametrize("cls", ZOO)
def test_options_out_of_range(cls: Any) -> None:
    for name in ("lr", "eps", "weight_decay", "betas"):
        if name in inspect.signature(cls.__init__).parameters:
            value: Any = (0.9, 0.9, 1.5) if name == "betas" else -1.5
            with pytest.raises(ValueError, match=r"1\.5"):
                cls([torch.zeros(2, requires_grad=True)], **{name: value})
