"""``python -m tests.autograd.judge [names]``, on a GPU with ``JUDGE_DEVICE=cuda`` before it"""

from __future__ import annotations

import argparse
import fnmatch
import math
import random
import sys
from collections import Counter

from . import table
from .cases import DEVICE, MODULES, MOST, OPERATORS
from .running import reports

parser = argparse.ArgumentParser(prog="python -m tests.autograd.judge", description=__doc__)
parser.add_argument("names", nargs="*", help="of operators or modules, * for any letters (default: all)")
parser.add_argument("--most", type=int, default=MOST, help="samples of one operator")
parser.add_argument("--notes", type=int, default=3, help="cases of one operator that are shown")
parser.add_argument("--processes", type=int, default=2)
parser.add_argument("--seconds", type=float, default=math.inf, help="as many in this time, chosen by chance")
given = parser.parse_args()

names = [
    name
    for name in [*OPERATORS, *MODULES]
    if not given.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in given.names)
]
if given.seconds < math.inf:
    random.Random(0).shuffle(names)
cases, done = Counter[str](), []
for each in reports(names, given.most, given.processes, given.seconds):
    cases.update(each.counts)
    done.append(each)
    if each.kind != "whole":
        print(f"== {each.kind} {each.name} {dict(each.counts)} {each.seconds:.1f}s", flush=True)
        for note in [*dict.fromkeys([*each.faults, *each.notes])][: given.notes]:
            print("    ", note[:400])
print(dict(cases), dict(Counter(each.kind for each in done)), f"{len(done)} of {len(names)} on {DEVICE}")
if len(done) == len(OPERATORS) + len(MODULES) and DEVICE == "cpu":
    table.write(done)
    print(f"written: {table.PATH}")
sys.exit(any(each.kind == "FAULT" for each in done))
