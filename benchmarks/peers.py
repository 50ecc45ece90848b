"""``python -m benchmarks.peers``: AdamW's step beside that of other packages, as far as they are installed.

Each peer takes turns with ours in a process of its own (see :mod:`benchmarks.peer`), whose caches of compiled
code are empty: what a first step takes is what a user waits for on a fresh machine. Whoever computes
something else than AdamW is told by a few steps with gradients that change. Writes ``peers.json`` and
``peers.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from . import targets
from .cases import threads_text
from .fresh_process import measured_by
from .machine import Machine, this_machine
from .peer import PEERS, Measured
from .plan import is_asked_for
from .table import Table, three_digits
from .timing import Spread
from .workloads import MODELS

RESULTS = Path(__file__).parent / "results"
MODEL_NAMES = ("mlp", "resnet18", "gpt2")
# Where ours, torch.compile, Triton and DeepSpeed keep what they compile.
# A folder that the environment names is used as it is.
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR")
LEVEL = 1.0  # the target: nobody is faster
SAME = 1e-5  # parameters near 1, the same update in another order of its operations


@dataclass
class PeersReport:
    """Attributes:
    skipped: who could not take part, with the reason, by the label as ``measured``.
    """

    machine: Machine
    measured: dict[str, Measured] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def read(path: Path) -> PeersReport:
    content = json.loads(path.read_text(encoding="utf-8"))
    measured = {label: _measured(values) for label, values in content["measured"].items()}
    return PeersReport(Machine(**content["machine"]), measured, content["skipped"])


def _measured(content: dict[str, Any]) -> Measured:
    return Measured(**{**content, **{name: Spread(**content[name]) for name in ("peers", "ours", "ratio")}})


def tables(report: PeersReport) -> list[Table]:
    """One for each model and number of threads."""
    groups: dict[str, list[list[str]]] = {}
    for found in report.measured.values():
        title = f"AdamW alone, {MODELS[found.model].title}, {threads_text(found.threads)}"
        groups.setdefault(title, []).append(_row(found))
    headings = ["peer", "peer µs", "ours µs", "peer / ours", "quartiles", "first step s", "torch's numbers"]
    return [Table(title, headings, rows) for title, rows in groups.items()]


def _row(found: Measured) -> list[str]:
    return [
        found.peer,
        three_digits(found.peers.median),
        three_digits(found.ours.median),
        targets.text(found.ratio.median, LEVEL),
        f"{found.ratio.lower:.2f} to {found.ratio.upper:.2f}",
        three_digits(found.first_step),
        "yes" if found.difference < SAME else f"no, {found.difference:.0e} away",
    ]


def markdown(report: PeersReport) -> str:
    versions = {PEERS[found.peer].package: found.version for found in report.measured.values()}
    parts = [
        "# AdamW beside other packages",
        f"{report.machine.facts()}\n- {', '.join(f'{name} {number}' for name, number in versions.items())}",
        "Median microseconds of a step on fixed gradients, each peer in turns with ours: above 1, ours is "
        "faster, and that is the target. Both step the same parameters, ours with its native step compiled. "
        "First step: to build the optimizer, compile what is compiled, and step, with empty caches of "
        "compiled code. Torch's numbers: whether five large steps give what torch's AdamW gives.",
        *(each.as_markdown() for each in tables(report)),
    ]
    if report.skipped:
        parts.append("## Skipped\n\n" + "\n".join(f"- {name}: {why}" for name, why in report.skipped.items()))
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help='measure these and keep what the folder holds of others: "GPT-2 DeepSpeed", MLP',
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="for each peer on each model (default 12)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for peers.json and peers.md")
    options = parser.parse_args(arguments)
    pairs = {f"{MODELS[model].title}: {name}": (model, name) for model in MODEL_NAMES for name in PEERS}
    labels = [label for label in pairs if is_asked_for(label, options.only)]
    if not labels:
        parser.error("--only: none of these is meant:\n" + "\n".join(pairs))
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / "peers.json"
    report = PeersReport(this_machine())
    if options.only and path.exists() and (before := read(path)).machine.is_same(report.machine):
        report = before
    for label in labels:
        found = _in_a_fresh_process(*pairs[label], options.seconds, options.threads)
        report.skipped.pop(label, None)
        report.measured.pop(label, None)
        if "skipped" in found:
            report.skipped[label] = found["skipped"]
            print(f"{label}: skipped, {found['skipped']}", file=sys.stderr, flush=True)
        else:
            report.measured[label] = now = _measured(found)
            in_order = [each for each in pairs if each in report.measured]
            report.measured = {each: report.measured[each] for each in [*in_order, *report.measured]}
            print(f"{label}: {now.ratio.median:.2f} times ours", file=sys.stderr, flush=True)
        path.write_text(report.as_json(), encoding="utf-8")
    (options.out / "peers.md").write_text(markdown(report), encoding="utf-8")
    for each in tables(report):
        print(f"\n{each.as_text()}")


def _in_a_fresh_process(model: str, peer: str, seconds: float, threads: int) -> dict[str, Any]:
    """What :mod:`benchmarks.peer` finds, with nothing compiled before."""
    arguments = peer, model, f"--seconds={seconds}", f"--threads={threads}"
    with tempfile.TemporaryDirectory() as empty:
        return measured_by("benchmarks.peer", *arguments, environment=dict.fromkeys(CACHES, empty))


if __name__ == "__main__":
    main()
