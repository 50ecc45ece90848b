"""Few bits: the text and its transformer, the loop on rows with many answers, the written criterion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from recipes.common.loop import evaluate
from recipes.low_precision import WAYS, InPrecision, Outcome, judge
from recipes.parts.language_reference import load_text, paragraphs
from recipes.parts.transformer import Transformer

WINDOW = 16


def written(rows: torch.Tensor, letters: tuple[str, ...]) -> str:
    return "".join(letters[number] for number in rows.flatten().tolist())


@pytest.mark.parametrize("split", ["test", "validation"])
def test_rows_are_the_text_and_answers_the_next_characters(split: str) -> None:
    data = load_text(WINDOW, split)
    text = written(data.train_inputs, data.classes)
    assert text[1:] == written(data.train_targets, data.classes)[:-1]
    assert len(text) > 200_000
    assert data.train_inputs.shape == data.train_targets.shape == (len(data.train_rows), WINDOW)
    every = "\n\n".join(paragraphs())
    assert set(data.classes) == {*every}
    known = {*text.split("\n\n")}
    held_out = written(data.eval_inputs, data.classes).split("\n\n")[1:-1]  # a window may begin within one
    assert len(held_out) > 200
    assert all(paragraph in every and paragraph not in known for paragraph in held_out)


def test_what_is_measured_at_last_is_not_there_while_one_chooses() -> None:
    choosing, test = load_text(WINDOW, "validation"), load_text(WINDOW, "test")
    last = {*written(test.eval_inputs, test.classes).split("\n\n")[1:-1]}
    seen = [written(rows, choosing.classes) for rows in (choosing.train_inputs, choosing.eval_inputs)]
    assert last.isdisjoint("\n\n".join(seen).split("\n\n"))


def test_the_transformer_sees_what_came_before_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = Transformer(letters=11, places=WINDOW, width=12, heads=3, blocks=2).double()
    text = torch.randint(11, (2, WINDOW))
    changed = text.clone()
    changed[:, 9] = (text[:, 9] + 1) % 11
    before, after = network(text), network(changed)
    assert before.shape == (2, 11, WINDOW)
    assert torch.equal(before[..., :9], after[..., :9])
    assert (before[..., 9:] != after[..., 9:]).any(dim=1).all()
    # Attention, by the formula of Vaswani et al. (2017).
    attention, places = network.blocks[0].attention[1], torch.randn(2, WINDOW, 12, dtype=torch.float64)
    query, key, value = attention.query_key_value(places).chunk(3, dim=-1)
    heads = []
    for q, k, v in zip(*(part.split(4, dim=-1) for part in (query, key, value)), strict=True):
        later = torch.ones(WINDOW, WINDOW, dtype=torch.bool).triu(1)
        weights = (q @ k.mT / 2).masked_fill(later, -torch.inf).softmax(dim=-1)
        heads.append(weights @ v)
    torch.testing.assert_close(attention(places), attention.output(torch.cat(heads, dim=-1)))


def test_each_character_counts_as_an_answer() -> None:
    torch.manual_seed(0)
    network = InPrecision(Transformer(7, WINDOW, width=8, heads=2, blocks=1), torch.bfloat16)
    inputs, targets = torch.randint(7, (2, 5, WINDOW))
    loss, accuracy = evaluate(network, inputs, targets)
    scores = network(inputs)
    assert scores.dtype == torch.float32
    assert loss == pytest.approx(F.cross_entropy(scores, targets).item(), rel=1e-5)
    assert accuracy == pytest.approx((scores.argmax(1) == targets).float().mean().item(), rel=1e-5)


def outcomes(**differences: tuple[float, float]) -> dict[str, list[Outcome]]:
    """Five seeds; how much worse the loss and the accuracy of a way are than float32's."""
    found = {}
    for way in WAYS:
        worse, less = differences.get(way.replace(", ", "_").replace(" ", "_"), (0.0, 0.0))
        one = Outcome([2.0, 1.0 + worse], 0.8 - less, [1, 2, 3], [1.0, 0.5, 0.1], 12.0)
        found[way] = [
            replace(one, losses=[2.0, one.losses[1] + seed / 10 + worse * seed / 50]) for seed in range(5)
        ]
    return found


STOPPED = {"bfloat16_nearest": (0.1, 0.01)}


@pytest.mark.parametrize(
    ("differences", "borne_out"),
    [
        (STOPPED, True),
        ({}, False),  # nearest learns as well
        ({**STOPPED, "bfloat16_stochastic": (0.06, 0.0)}, False),
        ({**STOPPED, "bfloat16_Kahan": (0.06, 0.0)}, False),
        ({**STOPPED, "bfloat16_Kahan": (0.04, 0.0)}, True),
        ({**STOPPED, "states_8_bits_stochastic": (0.0, 0.006)}, False),
        ({**STOPPED, "states_bfloat16_stochastic": (0.0, 0.004)}, True),
    ],
)
def test_the_criterion(differences: dict[str, tuple[float, float]], borne_out: bool) -> None:
    verdict = judge("few bits do", outcomes(**differences))
    assert verdict.borne_out is borne_out
    of_16_bits, of_8_bits = (
        0.0 - 100 * differences.get(f"states_{what}_stochastic", (0.0, 0.0))[1]
        for what in ("bfloat16", "8_bits")
    )
    assert f"{of_16_bits:+.2f} and {of_8_bits:+.2f} points from float32's" in verdict.evidence
