"""Learning rates, adaptive steps and the plane through two minima, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recipes.adaptive_steps import AdamUncorrected, first_steps, theory
from recipes.learning_rates import descend, judge
from recipes.loss_plane import Plane


@pytest.mark.parametrize("share", [0.1, 1.0, 1.9, 2.1])
def test_descent_on_the_parabola_is_geometric(share: float) -> None:
    assert descend(share) == pytest.approx([(1 - share) ** t for t in range(13)])


def test_the_verdict_on_learning_rates_follows_the_criterion() -> None:
    ends = {0.001: 2.0, 0.01: 1.0, 0.1: 0.1, 1.0: 0.01, 10.0: math.inf}
    assert judge(ends, start=2.3).borne_out
    assert not judge({**ends, 0.01: 0.05}, start=2.3).borne_out
    assert not judge({**ends, 10.0: 1.0}, start=2.3).borne_out
    assert not judge({**ends, 10.0: 0.001}, start=2.3).borne_out  # the best is at the edge


def test_adams_first_steps_are_torchs_and_theorys() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=1.0)
    places = [0.0]
    for _ in range(100):
        x.grad = torch.ones_like(x)
        optimizer.step()
        places.append(x.item())
    assert first_steps(corrected=True) == pytest.approx(list(-np.diff(places)), rel=1e-6)
    assert first_steps(corrected=False) == pytest.approx(theory(corrected=False), rel=1e-5)
    assert theory(corrected=False)[0] == pytest.approx(0.1 / math.sqrt(0.001))
    assert AdamUncorrected.states == ("exp_avg", "exp_avg_sq")


def test_a_plane_goes_through_its_three_places() -> None:
    places = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    plane = Plane.through(*places)
    seen = plane.seen(places)
    torch.testing.assert_close(plane.at(seen), places, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cdist(seen, seen), torch.cdist(places, places), rtol=1e-4, atol=1e-4)
