"""The paths of the page are torch's: in Chromium, against torch.optim and autograd in double precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from torchopt_course.playground import page
from torchopt_course.playground.landscapes import LANDSCAPES, Landscape

from ..browser import Browser
from ..optimizers.test_write_your_own import Lion

pytest.importorskip("sympy")
STEPS = 100


class TorchLion(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float, betas: Any = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = group["betas"][0] * m + (1 - group["betas"][0]) * p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update.sign())
                m.mul_(group["betas"][1]).add_((1 - group["betas"][1]) * p.grad)


CASES: dict[str, tuple[str, Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": ("SGD", torch.optim.SGD, {"lr": 1e-3}),
    "SGD, decay": ("SGD", torch.optim.SGD, {"lr": 1e-3, "weight_decay": 0.1}),
    "momentum": ("SGD", torch.optim.SGD, {"lr": 3e-4, "momentum": 0.9}),
    "dampening": ("SGD", torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9, "dampening": 0.5}),
    "Nesterov": ("Momentum", torch.optim.SGD, {"lr": 3e-4, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", torch.optim.Adagrad, {"lr": 0.3}),
    "Adagrad, decays": ("Adagrad", torch.optim.Adagrad, {"lr": 0.3, "lr_decay": 0.01, "weight_decay": 0.1}),
    "RMSprop": ("RMSprop", torch.optim.RMSprop, {"lr": 0.01}),
    "centered": ("RMSprop", torch.optim.RMSprop, {"lr": 0.01, "centered": True, "weight_decay": 0.1}),
    "RMSprop, momentum": ("RMSprop", torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.9, "alpha": 0.9}),
    "Adam": ("Adam", torch.optim.Adam, {"lr": 0.05}),
    "Adam, L2": ("Adam", torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "AMSGrad": ("Adam", torch.optim.Adam, {"lr": 0.05, "amsgrad": True}),
    "AdamW": ("AdamW", torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "AdamW, AMSGrad": ("AdamW", torch.optim.AdamW, {"lr": 0.05, "amsgrad": True, "eps": 1e-3}),
    "Lion": ("Lion", TorchLion, {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}),
}  # fmt: skip
# Where the page starts, and other parameters of those that have any.
GROUNDS: dict[str, tuple[float, ...]] = {
    **{each.name: tuple(value for _, _, value in each.parameters.values()) for each in LANDSCAPES},
    "turned ravine": (10.0, 30.0),
}


def landscape_of(ground: str) -> Landscape:
    return next(each for each in LANDSCAPES if each.name == ground.replace("turned ravine", "Ravine"))


def torchs_path(ground: str, make: Callable[..., Any], options: dict[str, Any], noise: Any = None) -> Any:
    landscape = landscape_of(ground)
    parameters = [torch.tensor(value, dtype=torch.float64) for value in GROUNDS[ground]]
    point = torch.tensor(landscape.start, dtype=torch.float64, requires_grad=True)
    optimizer = make([point], **options)
    path = [point.detach().clone()]
    for step in range(STEPS):
        optimizer.zero_grad()
        landscape.height(*point, *parameters).backward()
        if noise is not None:
            point.grad += torch.tensor(noise[step], dtype=torch.float64)
        optimizer.step()
        path.append(point.detach().clone())
    return torch.stack(path)


def options_of_page(options: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= {f"{name}.{i}": v for i, v in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return flat


WALK = """
const asked = %s;
return asked.map(({name, ground, parameters, options, noise}) => {
  const optimizer = named(OPTIMIZERS, name), landscape = named(LANDSCAPES, ground);
  const start = landscape.start, known = firstOptions(optimizer), all = {...known, ...options};
  if (Object.keys(all).length !== Object.keys(known).length) throw new Error("no such option");
  const path = walk({optimizer, options: all, landscape, parameters, start, steps: %d, noise, seed: 3});
  const drawn = Array.from({length: %d}, (_, k) => normals(3, k + 1).map((z) => noise * z));
  return {x: path.x, y: path.y, stopped: path.stopped, drawn};
});
"""


@pytest.fixture(scope="module")
def playground(browser: Browser) -> Browser:
    browser.show(page([Lion]))
    return browser


def compare(browser: Browser, wanted: list[tuple[str, str]], noise: float = 0.0) -> None:
    asked = [
        {
            "name": CASES[case][0],
            "ground": landscape_of(ground).name,
            "parameters": GROUNDS[ground],
            "options": options_of_page(CASES[case][2]),
            "noise": noise,
        }
        for case, ground in wanted
    ]
    paths = browser.run(WALK % (json.dumps(asked), STEPS, STEPS))
    for (case, ground), found in zip(wanted, paths, strict=True):
        _, make, options = CASES[case]
        expected = torchs_path(ground, make, options, found["drawn"] if noise else None)
        assert found["stopped"] == "", (case, ground)
        ours = torch.tensor([found["x"], found["y"]], dtype=torch.float64).T
        worst = (ours - expected).abs().max().item()
        assert ours.shape == expected.shape
        assert (expected[1:] != expected[:-1]).any(dim=1).all(), (case, ground)  # it walks
        assert worst < 1e-12 * max(1.0, expected.abs().max().item()), (case, ground, worst)


def test_every_optimizer_walks_as_torchs(playground: Browser) -> None:
    """A hundred steps, in the ravine, straight and turned."""
    compare(playground, [(case, ground) for case in CASES for ground in ("Ravine", "turned ravine")])


@pytest.mark.slow
def test_in_every_landscape(playground: Browser) -> None:
    compare(playground, [(case, ground) for case in CASES for ground in GROUNDS])


@pytest.mark.slow
def test_with_noise(playground: Browser) -> None:
    """The page's random numbers, given to torch."""
    compare(playground, [(case, "Ravine") for case in CASES], noise=0.5)
