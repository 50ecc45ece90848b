"""A convex problem on which Adam walks to the worst point: `python recipes/adam_can_fail.py`.

Every round t has its own loss on [-1, 1], and x moves after having paid it:

    f_t(x) = C x  if t mod P = 1,  else  -c x

A whole period costs (C - (P - 1) c) x with a slope above zero: x = -1 is the best point, +1 the worst. Adam
divides by the root of a *forgetting* average of squared gradients: the large gradient, which is right, is cut
down to the length of the small ones, which are wrong, and of these there are more. AMSGrad and Adagrad never
let the divisor shrink. In the random game chance decides in each round.

The claim is borne out if Adam ends in the worst tenth of [-1, 1], having paid more than half of what staying
at x = +1 costs beyond x = -1, while AMSGrad and Adagrad end in the best tenth, having paid less than half:
both in the periodic game and in the median of the random ones.

smoke and gallery play Theorem 1 of Reddi, Kale, Kumar, On the Convergence of Adam and Beyond, ICLR 2018. full
plays its Figure 1, a million rounds with betas like those of practice, which takes some ten minutes.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import Tensor

import torchopt_course as optim
from recipes.common.command_line import progress_bar
from recipes.common.pictures import COLORS, Figure, decorate, panels
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of


@dataclass(frozen=True)
class Problem:
    """What is played, and with which settings."""

    spike: float
    """C, the gradient that is rare and right."""
    dip: float
    """c, the size of the frequent gradient, which points the wrong way."""
    period: int
    """P, the rounds from one spike to the next in the periodic game."""
    chance: float
    """Probability of a spike in each round of the random games."""
    lr: float
    """Learning rate. Adam's and AMSGrad's falls as lr / sqrt(t); Adagrad's shrinks by itself."""
    betas: tuple[float, float]
    """Adam's and AMSGrad's memory of the gradient and of its square."""


@dataclass(frozen=True)
class Size:
    problem: Problem
    rounds: int
    games: int
    """Random games, played at once."""
    memories: int
    """How many values of β₂ are tried for the third picture."""


# The theorem: β₂ = 1 / (1 + C²).
THEOREM_1 = Problem(3.0, 1.0, period=3, chance=1 / 3, lr=0.5, betas=(0.0, 0.1))
# The paper does not name the figure's learning rate; with this one a million rounds are enough.
FIGURE_1 = Problem(1010.0, 10.0, period=101, chance=0.01, lr=0.6, betas=(0.9, 0.99))
SIZES = {
    "smoke": Size(THEOREM_1, rounds=1_000, games=50, memories=5),
    "gallery": Size(THEOREM_1, rounds=20_000, games=200, memories=20),
    "full": Size(FIGURE_1, rounds=1_000_000, games=50, memories=40),
}
NAMES = ("Adam", "AMSGrad", "Adagrad")
MEMORY_ROUNDS = 600
COLUMNS = {
    "game": "{game}",
    "optimizer": "{optimizer}",
    "x": "{x:+.4f}",
    "average\nregret": "{average_regret:.4f}",
    "share of the\nworst point's": "{share_of_worst:.0%}",
}


def draw_spikes(problem: Problem, rounds: int, games: int, seed: int) -> Tensor:
    """When the gradient is large: rounds x (1 + games). Column 0 is periodic, the others are random."""
    t = torch.arange(1, rounds + 1).unsqueeze(1)
    chance = torch.rand(rounds, games, generator=torch.Generator().manual_seed(seed)) < problem.chance
    return torch.cat([t % problem.period == 1, chance], dim=1)


@dataclass(frozen=True)
class Course:
    """How one optimizer fared in several games, at the rounds that are kept for the curves."""

    rounds: list[int]
    x: Tensor
    """Where it stood after each kept round, kept rounds x games."""
    regret: Tensor
    """Paid so far beyond what the best point would have paid, for each round on average; same shape."""


def play(name: str, spikes: Tensor, problem: Problem, on_round: Callable[[], object]) -> Course:
    """Round after round: pay f_t(x), follow its gradient, go back into [-1, 1]."""
    # The update rules are elementwise, so one tensor plays all games at once and none sees the others.
    x = torch.zeros(spikes.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer: torch.optim.Optimizer
    if name == "Adagrad":
        optimizer = optim.Adagrad([x], lr=problem.lr)
    else:  # AMSGrad is Adam with one word more
        optimizer = optim.Adam([x], lr=problem.lr, betas=problem.betas, amsgrad=name == "AMSGrad")
    large, small = torch.tensor([problem.spike, -problem.dip], dtype=torch.float64)
    # Some 300 rounds, evenly spread on a logarithmic axis, with the first and the last.
    kept = {round(len(spikes) ** (i / 299)) for i in range(300)}
    positions, regrets = [], []
    regret = torch.zeros(spikes.shape[1], dtype=torch.float64)
    for t, spike in enumerate(spikes, start=1):
        slope = torch.where(spike, large, small)
        regret += slope * (x.detach() + 1)  # f_t(x) - f_t(-1)
        x.grad = slope  # the derivative of f_t
        if name != "Adagrad":
            optimizer.param_groups[0]["lr"] = problem.lr / math.sqrt(t)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
        if t in kept:
            positions.append(x.detach().clone())
            regrets.append(regret / t)
        on_round()
    return Course(sorted(kept), torch.stack(positions), torch.stack(regrets))


def worst_regret(problem: Problem, chance: float) -> float:
    """Average regret of standing at x = +1 for ever: twice the mean slope. 2 (C - P + 1) / P for c = 1."""
    return 2 * (chance * problem.spike - (1 - chance) * problem.dip)


def drift(amsgrad: bool, beta2: float, problem: Problem) -> float:
    """How far one period of the game moves x, in units of the learning rate, without momentum.

    In the long run s goes through the same P values in every period. After the spike it is
    s_1 = β₂ s_P + (1 - β₂) C², and then s_k - c² = β₂ (s_(k-1) - c²). AMSGrad keeps the highest, s_1.
    """
    c, p = problem.dip, problem.period
    above = (1 - beta2) * (problem.spike**2 - c**2) / (1 - beta2**p)
    scales = [c**2 + (1 if amsgrad else beta2**k) * above for k in range(p)]
    return -problem.spike / math.sqrt(scales[0]) + sum(c / math.sqrt(s) for s in scales[1:])


def judge(rows: Sequence[dict[str, Any]], size: Size) -> Verdict:
    """The criterion that the help text names."""
    periodic, random = (
        ", ".join(f"{row['optimizer']} at {row['x']:+.2f}" for row in rows if row["game"] == game)
        for game in ("periodic", "random")
    )
    return Verdict(
        "Adam can converge to the worst point of a convex problem; AMSGrad and Adagrad do not",
        all(
            row["x"] > 0.8 and row["share_of_worst"] > 1 / 2
            if row["optimizer"] == "Adam"
            else row["x"] < -0.8 and row["share_of_worst"] < 1 / 2
            for row in rows
        ),
        f"after {size.rounds:,} rounds of the periodic game stood {periodic}, in the median of {size.games} "
        f"random games {random}",
    )


def draw_games(title: str, courses: Mapping[str, Course], worst: float) -> Figure:
    """x and average regret over the rounds; of many games the median and the middle 80 %."""
    picture, (left, right) = panels(11, 4.6, columns=2)
    picture.suptitle(title)
    for name, course in courses.items():
        for axes, values in ((left, course.x), (right, course.regret)):
            low, middle, high = values.quantile(torch.tensor([0.1, 0.5, 0.9]).double(), dim=1).numpy()
            axes.semilogx(course.rounds, middle, color=COLORS[name], label=name, linewidth=2)
            axes.fill_between(course.rounds, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
            axes.set_xlim(10, course.rounds[-1])  # before that one round decides everything
    decorate(left, "round t", "x", "Where it stands")
    decorate(right, "round t", "average regret", "What it paid beyond the best point, per round")
    left.set_yticks([-1, 0, 1], ["best\npoint -1", "0", "worst\npoint +1"])
    left.set_ylim(-1.3, 1.3)
    right.set_yticks([0, worst], ["best\npoint 0", f"worst\npoint {worst:.3g}"])
    right.set_ylim(-worst / 3, 2.5 * worst)
    right.legend(loc="upper right")
    return picture


def try_memories(count: int) -> tuple[Figure, dict[str, Any]]:
    """Theory and measurement against β₂ in Theorem 1's game: the drift of one period, and where x ends."""
    picture, axes = panels(9, 4.6)
    periodic = draw_spikes(THEOREM_1, MEMORY_ROUNDS, games=0, seed=0)
    fine, tried = [i / 500 for i in range(500)], [i / count for i in range(count)]
    ends: dict[str, list[float]] = {"Adam": [], "AMSGrad": []}
    for name, size in (("Adam", 9), ("AMSGrad", 4)):  # where both end, both are seen
        for beta2 in tried:
            course = play(name, periodic, replace(THEOREM_1, betas=(0.0, beta2)), lambda: None)
            ends[name].append(course.x[-1, 0].item())
        drifts = [drift(name == "AMSGrad", beta2, THEOREM_1) for beta2 in fine]
        axes.plot(fine, drifts, color=COLORS[name], linewidth=2, label=f"{name}: drift in one period, in η")
        measured = f"{name}: x after {MEMORY_ROUNDS} rounds"
        axes.plot(tried, ends[name], "o", color=COLORS[name], markersize=size, label=measured)
    axes.axhline(0, color="0.5", linestyle=":", linewidth=1.2)
    title = "Forgetting is the reason: in Theorem 1's game a longer memory of squares heals Adam"
    decorate(axes, "β₂", "above zero: towards the worst point", title)
    axes.legend(loc="upper right")
    return picture, {"beta2": tried, "x": ends}


def run(report: Report, size: Size, seed: int) -> None:
    """Play, draw, judge."""
    problem = size.problem
    spikes = draw_spikes(problem, size.rounds, size.games, seed)
    with progress_bar(len(NAMES) * size.rounds, "round") as bar:
        played = {name: play(name, spikes, problem, bar.update) for name in NAMES}
    settings = f"(C = {problem.spike:g}, c = {problem.dip:g}, β₂ = {problem.betas[1]:g})"
    often = f"The large gradient comes every {problem.period} rounds"
    rarely = (
        f"The large gradient comes by chance, once in {1 / problem.chance:.0f} rounds; median and middle "
        f"80 % of {size.games} games"
    )
    rows = []
    for game, columns, chance, title in (
        ("periodic", slice(0, 1), 1 / problem.period, often),
        ("random", slice(1, None), problem.chance, rarely),
    ):
        worst = worst_regret(problem, chance)
        courses = {n: Course(c.rounds, c.x[:, columns], c.regret[:, columns]) for n, c in played.items()}
        report.picture(game, draw_games(f"{title} {settings}", courses, worst))
        for name, course in courses.items():
            x, regret = (values.median(dim=1).values.tolist() for values in (course.x, course.regret))
            report.curve(f"x_{game}/{name}", "After the round; median of the games.", x, course.rounds)
            words = "Paid beyond the best point, per round; median of the games."
            report.curve(f"average_regret_{game}/{name}", words, regret, course.rounds)
            end = {"x": x[-1], "average_regret": regret[-1], "share_of_worst": regret[-1] / worst}
            rows.append({"game": game, "optimizer": name, **end})
    picture, memory = try_memories(size.memories)
    report.picture("memory", picture)
    report.finish(table_of(rows, COLUMNS), rows, judge(rows, size), memory=memory)


if __name__ == "__main__":
    main(__doc__, SIZES, run)
