"""Real text that comes with Python: its language reference, as `help("if")` shows it.

Some 370,000 characters: English, grammar, tables and programs. Who reads them one by one is asked at each
place which one comes next.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from recipes.common.data import SPLIT_SEED, Data, Split
from recipes.common.errors import DataError

# Of the paragraphs.
HELD_OUT = 0.1


def paragraphs() -> list[str]:
    """In their order, and each once: many stand under several words. Raises `DataError` without the text."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:  # some systems ship Python without its help
        raise DataError(
            "this Python has no pydoc_data, the text of help(): install the whole standard library "
            "(on Debian the package libpython3-stdlib)"
        ) from error
    return list(dict.fromkeys("\n\n".join(topics[word] for word in sorted(topics)).split("\n\n")))


@cache
def load_text(window: int, split: Split) -> Data:
    """Windows of so many characters, as numbers, and for each character the one that follows it.

    A tenth of the paragraphs is only measured. Other versions of Python have another text: see `sha256`.
    """
    texts = paragraphs()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    tenth = round(len(texts) * HELD_OUT)
    test, validation, rest = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
    held_out = test if split == "test" else validation  # the test part is out of reach while one chooses
    train = sorted(rest + validation) if split == "test" else sorted(rest)
    letters = tuple(sorted({*"\n\n".join(texts)}))
    inputs, targets = windows([texts[i] for i in train], letters, window)
    eval_inputs, eval_targets = windows([texts[i] for i in sorted(held_out)], letters, window)
    rows, eval_rows = torch.arange(len(inputs)), torch.arange(len(eval_inputs))
    return Data(inputs, targets, eval_inputs, eval_targets, rows, eval_rows, window, letters)


def windows(texts: list[str], letters: tuple[str, ...], window: int) -> tuple[Tensor, Tensor]:
    """rows x window numbers of characters, and the same one place further on."""
    numbers = {letter: number for number, letter in enumerate(letters)}
    text = torch.tensor([numbers[letter] for letter in "\n\n".join(texts)])
    rows = (len(text) - 1) // window
    return text[: rows * window].view(rows, window), text[1 : rows * window + 1].view(rows, window)
