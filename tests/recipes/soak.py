"""`make soak`: runs killed at 50 random instants, and 500 corrupted checkpoints."""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from ..processes import start
from .interrupted import CONFIG, assert_same_run, kill_at_random, words_of
from .processes import train_by_command
from .test_checkpoint import corrupt_and_open

KILLS_A_RUN = 10


def main() -> None:
    """Kill, corrupt, and report; an assertion fails where a run is not what it would have been."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--corruptions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = start(train_by_command, words_of(CONFIG, folder / "calm"), folder / "calm.output")
        process.join()
        for first in range(0, options.kills, KILLS_A_RUN):
            run = folder / f"killed {first}"
            killed_at = kill_at_random(run, min(KILLS_A_RUN, options.kills - first), dice)
            assert_same_run(run, folder / "calm")
            print(f"killed at steps {killed_at}: the same weights, curves and result", flush=True)
        accepted = corrupt_and_open(folder, options.corruptions, dice)
        print(f"{options.corruptions} corrupted checkpoints: {accepted} accepted (seed {options.seed})")
        assert accepted == 0


if __name__ == "__main__":
    main()
