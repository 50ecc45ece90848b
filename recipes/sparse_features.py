"""Which optimizer learns from features that are seldom there? `python recipes/sparse_features.py`.

    "Adagrad is particularly effective for sparse features."

The setting is the one that Adagrad was made and measured for (Duchi, Hazan, Singer, 2011): online learning
on text. Documents come one by one; for each a linear model says which library its words are from, pays its
loss (cross-entropy), and then learns from it. No document is seen twice, and no weight is tried on other
rows: what counts is the regret, the loss that was paid on the way. The best fixed weights would pay next to
nothing, for there are more words than documents; so the average regret is the average loss.

The documents are the documentation inside of six Python libraries (`recipes/parts/docstrings.py`). Twice:

    all words           thousands of features, of which a document has 50; most are in one or two
    50 commonest words  features that are in most documents, for comparison

All optimizers get the same streams and the same grid of learning rates, of which the one with the least loss
on a stream of other documents is taken. SGD has a constant rate, and in a second version the rate η/√t of
online gradient descent. SparseAdam is torch's Adam for sparse gradients; Adam itself, like torch's, refuses
them. Momentum makes the gradient dense, since a velocity also moves weights whose gradient is zero.

The verdict, written before any stream but the tuning's was run. The claim is borne out if

1. on all words Adagrad's regret is less than that of SGD, of SGD with η/√t and of Momentum, each by more than
   two standard errors over the streams,
2. no other optimizer's regret there is less than Adagrad's by more than two standard errors, and
3. its lead over SGD is larger there than with the commonest words: it is sparsity that makes the difference.

gallery takes some minutes, full an hour.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if not __package__:  # run by its path, before which Python does not run the file of the package
    runpy.run_path(str(Path(__file__).resolve().with_name("__init__.py")))

import torch
from torch import nn
from torch.nn import functional as F

import torchopt_course as optim
from recipes.common.pictures import COLORS, Figure, decorate, figure
from recipes.common.report import Report, Verdict, main
from recipes.common.table import table_of
from recipes.parts.docstrings import LIBRARIES, load_documents
from recipes.parts.statistics import mean_curve, paired_lead

CLAIM = "Adagrad is particularly effective for sparse features"
ALL, COMMON = "all words", "50 commonest words"
COMMONEST = 50

# The class, and whether its learning rate falls as 1/√t.
OPTIMIZERS: dict[str, tuple[Any, bool]] = {
    "SGD": (optim.SGD, False),
    "SGD, η/√t": (optim.SGD, True),
    "Momentum": (optim.Momentum, False),
    "Adagrad": (optim.Adagrad, False),
    "SparseAdam": (torch.optim.SparseAdam, False),
}


@dataclass(frozen=True)
class Size:
    """How much is read."""

    documents: int
    """Of each library, half of them for the tuning."""
    streams: int
    """Random orders of the other half."""
    rates: tuple[float, ...]


HALF_DECADES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SIZES = {
    "smoke": Size(documents=20, streams=2, rates=(0.03, 0.3)),
    "gallery": Size(documents=600, streams=5, rates=HALF_DECADES),
    "full": Size(documents=4_000, streams=10, rates=HALF_DECADES),
}


@dataclass(frozen=True)
class Outcome:
    """What one stream came to."""

    seen: list[int]
    regret: list[float]
    """Average loss after so many documents; infinite where the weights diverged."""
    accuracy: float
    """Share of the documents whose library was named rightly, before it was told."""


def learn(condition: str, name: str, lr: float, documents: int, seed: int, tuning: bool) -> Outcome:
    """One optimizer on one stream, document by document: say, pay, learn."""
    data = load_documents(documents)
    half = len(data.words) // 2
    order = torch.randperm(half, generator=torch.Generator().manual_seed(seed))
    order += 0 if tuning else half
    make, falling = OPTIMIZERS[name]
    features = len(data.counts) if condition == ALL else COMMONEST
    model = nn.EmbeddingBag(features, len(LIBRARIES), mode="sum", sparse=name != "Momentum")
    nn.init.zeros_(model.weight)
    optimizer = make(model.parameters(), lr=lr)
    looks = {round(half * part / 50) for part in range(1, 51)}
    seen, regret, paid, right = [], [], 0.0, 0
    for t, number in enumerate(order.tolist(), start=1):
        words, library = data.words[number], data.libraries[number]
        if falling:
            optimizer.param_groups[0]["lr"] = lr / math.sqrt(t)
        optimizer.zero_grad()
        scores = model(words[words < features], torch.tensor([0]))
        loss = F.cross_entropy(scores, library[None])
        loss.backward()
        optimizer.step()
        paid += loss.item()
        right += int(scores.argmax() == library)
        if t in looks:
            seen.append(t)
            regret.append(paid / t if math.isfinite(paid) else math.inf)
    return Outcome(seen, regret, right / half)


def paid(outcomes: Sequence[Outcome]) -> list[float]:
    """Average loss of each whole stream."""
    return [outcome.regret[-1] for outcome in outcomes]


def judge(streams: Mapping[tuple[str, str], Sequence[Outcome]]) -> Verdict:
    """The criterion of the docstring on top, point by point; of every condition and optimizer the streams."""
    losses = {pair: paid(outcomes) for pair, outcomes in streams.items()}
    adagrad = losses[ALL, "Adagrad"]
    leads = {name: paired_lead(losses[ALL, name], adagrad) for name in OPTIMIZERS if name != "Adagrad"}
    common = paired_lead(losses[COMMON, "SGD"], losses[COMMON, "Adagrad"])
    ahead = all(leads[name][0] > 2 * leads[name][1] for name in ("SGD", "SGD, η/√t", "Momentum"))
    unbeaten = all(mean > -2 * error for mean, error in leads.values())
    listed = ", ".join(f"{name} {mean:+.3f} ± {error:.3f}" for name, (mean, error) in leads.items())
    return Verdict(
        CLAIM,
        ahead and unbeaten and leads["SGD"][0] > common[0],
        f"learning from all words Adagrad paid {fmean(adagrad):.3f} for a document; its lead, ± one "
        f"standard error over {len(adagrad)} streams, was over {listed}; from the {COMMONEST} commonest "
        f"words its lead over SGD was {common[0]:+.3f} ± {common[1]:.3f}",
    )


LOOKS = {**COLORS, "SGD, η/√t": "#999999", "SparseAdam": COLORS["Adam"]}


def draw(streams: Mapping[tuple[str, str], Sequence[Outcome]]) -> Figure:
    """Average loss so far against the number of documents; mean of the streams, and one standard error."""
    picture = figure(11, 4.6)
    panels = dict(zip((ALL, COMMON), picture.subplots(1, 2), strict=True))
    for (condition, name), outcomes in streams.items():
        seen, regrets = outcomes[0].seen, torch.tensor([outcome.regret for outcome in outcomes])
        mean, error = regrets.mean(dim=0), regrets.std(dim=0) / len(regrets) ** 0.5
        axes, color = panels[condition], LOOKS[name]
        axes.plot(seen, mean, color=color, label=name, linewidth=2)
        axes.fill_between(seen, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
    for condition, axes in panels.items():
        decorate(axes, "documents seen", "", condition)
    panels[ALL].set_ylabel("average loss of a document before it was learnt from")
    panels[COMMON].legend(title="bands: one standard error")
    return picture


COLUMNS = {
    "": "{condition}: {optimizer}",
    "rate": "{lr:g}{at_edge}",
    "regret of\na document": "{regret:.3f} ± {spread:.3f}",
    "rightly named": "{accuracy:.1%}",
}


def run(report: Report, size: Size, seed: int) -> None:
    """Choose each one's rate on the tuning stream, let it learn from the others, draw, judge."""
    data = load_documents(size.documents)
    pairs = list(product((ALL, COMMON), OPTIMIZERS))
    tuning = {pair: [(*pair, lr, size.documents, seed, True) for lr in size.rates] for pair in pairs}
    best = {
        pair: min(zip(paid(outcomes), size.rates, strict=True))[1]
        for pair, outcomes in report.train_all(learn, tuning, "tuning").items()
    }
    fresh = range(seed + 1, seed + 1 + size.streams)
    jobs = {pair: [(*pair, best[pair], size.documents, one, False) for one in fresh] for pair in pairs}
    streams = report.train_all(learn, jobs, "streams")

    for (condition, name), outcomes in streams.items():
        name = name.replace("/", "_")  # or it would have a chart of its own
        regret = mean_curve(outcome.regret for outcome in outcomes)
        words = "Average loss so far; mean over the streams."
        report.curve(f"regret/{condition}/{name}", words, regret, outcomes[0].seen)
    report.picture("regret", draw(streams))
    rows = [
        {
            "condition": condition,
            "optimizer": name,
            "lr": best[condition, name],
            "at_edge": best[condition, name] in (size.rates[0], size.rates[-1]),
            "accuracy": fmean(outcome.accuracy for outcome in outcomes),
            "regrets": paid(outcomes),
            "regret": fmean(paid(outcomes)),
            "spread": stdev(paid(outcomes)),
        }
        for (condition, name), outcomes in streams.items()
    ]
    text = f"{table_of(rows, COLUMNS)}\n\n!: the chosen rate is at the edge of the grid."
    report.finish(text, rows, judge(streams), documents_sha256=data.sha256())


if __name__ == "__main__":
    main(__doc__, SIZES, run)
