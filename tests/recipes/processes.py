"""What `python recipes/train.py WORDS` does, as the function that a process of its own calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def train_by_command(words: list[str], output: Path) -> None:
    """With what it says in a file."""
    from recipes.train import main

    with open(output, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.argv = ["train.py", *words]
        main()
