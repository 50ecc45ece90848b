"""Real text that is on every machine with these recipes: the documentation inside of Python libraries.

A document is one text in triple quotes; its features are the words in it, and what is to be told is the
library that it is from. A few words are in most documents, most words in one or two: features as sparse, and
as informative where they are rare, as Adagrad was invented for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from recipes.common.command_line import need

LIBRARIES = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "Python")
# A library that is called by its name would be too easy.
NAMES = frozenset({*LIBRARIES, "python", "pytorch", "scikit", "learn", "plt", "mpl"})
LEAST_WORDS = 10


@dataclass(frozen=True)
class Documents:
    """Words as numbers, the commonest first."""

    words: list[Tensor]
    """Of each document the numbers of its words, each once."""
    libraries: Tensor
    """Of each document the number of its library."""
    counts: Tensor
    """In how many documents each word is."""

    def sha256(self) -> str:
        """Other versions of the libraries have other texts."""
        everything = torch.cat([*self.words, self.libraries])
        return hashlib.sha256(everything.numpy().tobytes()).hexdigest()


@cache
def load_documents(each: int, seed: int = 0) -> Documents:
    """That many documents of each library, drawn at random, and in a random order."""
    dice = random.Random(seed)
    drawn: list[tuple[list[str], int]] = []
    for number, library in enumerate(LIBRARIES):
        some = [words for _, words in zip(range(each), texts(library, dice), strict=False)]
        drawn += [(words, number) for words in some]
    dice.shuffle(drawn)
    counts = Counter(word for words, _ in drawn for word in words)
    vocabulary = {word: number for number, (word, _) in enumerate(counts.most_common())}
    return Documents(
        [torch.tensor([vocabulary[word] for word in words]) for words, _ in drawn],
        torch.tensor([number for _, number in drawn]),
        torch.tensor([count for _, count in counts.most_common()]),
    )


def texts(library: str, dice: random.Random) -> Iterator[list[str]]:
    """The words of one document after the other, from a library's files in a random order."""
    folder = home(library)
    for path in dice.sample(files := sorted(folder.rglob("*.py")), len(files)):
        inside = path.relative_to(folder).parts
        if "site-packages" in inside or any("test" in part for part in inside):
            continue
        for text in re.findall(r'"""(.+?)"""', path.read_text(encoding="utf-8", errors="ignore"), re.DOTALL):
            words = sorted({*re.findall(r"[a-z]{3,}", text.lower())} - NAMES)
            if len(words) >= LEAST_WORDS:
                yield words


def home(library: str) -> Path:
    """Where the source lies."""
    if library == "Python":
        return Path(sysconfig.get_path("stdlib"))
    need(library)
    spec = importlib.util.find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
