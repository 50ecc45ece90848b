"""Measuring in a process of its own, so that nobody's threads or patches of torch are there beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def measured_by(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``python -m module`` prints on its last line, as JSON.

    Where the process ends with an error, and where it could not measure, ``"skipped"`` says why.

    Args:
        environment: variables for those that are not set.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**(environment or {}), **os.environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"skipped": f"its process ended with {done.returncode}: {done.stderr.strip()[-200:]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
