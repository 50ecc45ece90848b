"""Which cases there are, and which of them a command line asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .cases import Case
from .workloads import MODELS, OPTIMIZERS

# All five where the optimizer has much to do; one where forward and backward pass are nearly everything.
IN_THE_LOOP = {"lenet": ["Adam"], "mlp": ["Adam"], "wide": ["Adam"], "resnet18": list(OPTIMIZERS)}
ALONE = ("lenet", "mlp", "many", "resnet18", "gpt2")


def all_cases(threads: Iterable[int]) -> list[Case]:
    """In the loop first. Alone, one thread is measured where all lies in the caches."""
    threads = sorted(set(threads), reverse=True)
    return [
        *(
            Case("in the loop", optimizer, model, count)
            for count in threads
            for model, optimizers in IN_THE_LOOP.items()
            for optimizer in optimizers
        ),
        *(
            Case("alone", optimizer, model, count)
            for count in threads
            for model in ALONE
            for optimizer in OPTIMIZERS
            if count > 1 or len(threads) == 1 or not MODELS[model].large
        ),
    ]


def is_asked_for(label: str, patterns: Sequence[str]) -> bool:
    """Whether each word of a pattern begins a word of the label, and each number is one of its words.

    No pattern asks for everything.
    """
    words = label.lower().replace(",", " ").replace(":", " ").split()
    return not patterns or any(
        all(
            part in words if part.isdigit() else any(word.startswith(part) for word in words)
            for part in pattern.lower().split()
        )
        for pattern in patterns
    )
