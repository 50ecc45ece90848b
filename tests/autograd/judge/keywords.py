"""Each way in which torch takes an operator's arguments, by position and by its names for them.

``python -m tests.autograd.judge.keywords [names]`` counts the forms that torch takes and those that are taken
here with the same result, and prints the others.
"""

from __future__ import annotations

import argparse
import fnmatch
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchopt_course.autograd import Variable

from .cases import OPERATORS, _argument_names, _samples
from .verdict import TOLERANCE, Difference, _leaves_of, _same

SAMPLES = 12  # of each operator: they show which overloads there are
SAME, REFUSED = "the same", "refused by name"


def forms(name: str) -> Iterator[tuple[str, Callable[[Callable[[Tensor], Any]], Any]]]:
    """What each is called, and how to call it with what is made of each tensor that is differentiated."""
    op, known = OPERATORS[name], set[Any]()
    for sample in _samples(op, torch.float64)[:SAMPLES]:
        args = (sample.input, *sample.args)
        for names in _argument_names(op):
            if len(args) > len(names) or set(names[: len(args)]) & set(sample.kwargs):
                continue
            for how, function in (("function", op.op), ("method", op.method_variant)):
                for positional in range(how == "method", len(args)):
                    given = (*names[positional : len(args)], *sample.kwargs)
                    form = how, positional, given
                    if function is None or form in known:
                        continue

                    def call(
                        leaf: Callable[[Tensor], Any], f: Any = function, n: int = positional,
                        by: Sequence[str] = names, args: Any = args, kwargs: Any = sample.kwargs,
                    ) -> Any:  # fmt: skip
                        values, more = pytree.tree_map(_given(leaf), (args, kwargs))
                        torch.manual_seed(0)
                        return f(*values[:n], **dict(zip(by[n:], values[n:], strict=False)), **more)

                    try:
                        with torch.enable_grad():
                            call(Tensor.requires_grad_)
                    except Exception:  # not a name of this overload
                        continue
                    known.add(form)
                    yield f"{name}, {how}: {positional} by position, then {', '.join(given)}", call


def _given(leaf: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    def given(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return leaf(x.detach().clone()) if x.requires_grad else x.detach().clone()

    return given


def verdict(call: Callable[[Callable[[Tensor], Any]], Any]) -> str:
    theirs = _leaves_of(call(lambda x: x))
    try:
        mine = _leaves_of(call(lambda x: Variable(x) if x.is_floating_point() else x))
        for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            _same(a, b, f"output {number}", TOLERANCE[torch.float64])
    except NotImplementedError:
        return REFUSED
    except Difference as difference:
        return str(difference)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return SAME


def counted(names: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """How many forms of each verdict, and those that are neither taken nor refused by name."""
    counts, others = Counter[str](), []
    for name in names:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = list(forms(name))
            with torch.enable_grad():
                for what, call in found:
                    kind = verdict(call)
                    counts[kind if kind in (SAME, REFUSED) else "other"] += 1
                    if kind not in (SAME, REFUSED):
                        others.append(f"{what}: {kind}")
    return counts, others


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.autograd.judge.keywords", description=inspect.cleandoc(__doc__)
    )
    parser.add_argument("names", nargs="*", help="of operators, * for any letters (default: all)")
    patterns = parser.parse_args().names or ["*"]
    counts, others = counted([n for n in OPERATORS if any(fnmatch.fnmatchcase(n, p) for p in patterns)])
    print(*others, sep="\n")
    print(f"{sum(counts.values())} forms that torch takes: {dict(counts)}")
    sys.exit(bool(others))
