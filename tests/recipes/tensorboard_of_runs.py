"""TensorBoard as a server that a test asks, and two runs for it to show."""

from __future__ import annotations

import io
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from recipes.train import Config

PATIENCE = 60.0  # seconds; a busy machine is no failure

# 3 steps an epoch.
RUNS = {
    "adam": Config(optimizer="adam", scheduler="cyclic", epochs=2, batch_size=500),
    "adagrad": Config(optimizer="adagrad", lr=0.05, epochs=2, batch_size=500, amp=True),
}

CURVES_OF_EPOCHS = {
    "accuracy/eval": "accuracy",
    "loss/eval": "loss",
    "loss/train": "train_loss",
    "update_to_weight_ratio": "update_ratio",
}
CURVES_OF_STEPS = ["gradient_norm", "loss/train_step", "schedule/learning_rate", "schedule/momentum"]


class TensorBoard:
    """A running TensorBoard."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: object) -> bytes:
        address = f"{self.url}data/{path}?{urllib.parse.urlencode(query)}"
        with self.opener.open(address, timeout=PATIENCE) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def ask(self, path: str, **query: object) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, content: object) -> Any:
        request = urllib.request.Request(
            f"{self.url}data/{path}", json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with self.opener.open(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def steps(self, name: str, tag: str) -> list[int]:
        """Where the curve of a run has points; none if TensorBoard does not know it."""
        if tag not in self.ask("plugin/scalars/tags").get(name, {}):
            return []
        return [step for _, step, _ in self.ask("plugin/scalars/scalars", run=name, tag=tag)]


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
