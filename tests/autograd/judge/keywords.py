"""Each way in which torch takes an operator's arguments: by position, by name, with all defaults written out.

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
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchopt_course.autograd import Variable

from .cases import OPERATORS, _argument_names, _samples
from .verdict import TOLERANCE, Difference, _leaves_of, _same

SAMPLES = 12  # of each operator: they show which overloads there are
SAME, REFUSED = "the same", "refused by name"


# What a call is called, and how to make it with what is made of each tensor that is differentiated.
Call: TypeAlias = Callable[[Callable[[Tensor], Any]], Any]
Form: TypeAlias = tuple[str, Call]


def forms(name: str) -> Iterator[Form]:
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

                    if _is_taken(call):
                        known.add(form)
                        yield f"{name}, {how}: {positional} by position, then {', '.join(given)}", call


def defaults(name: str) -> Iterator[Form]:
    """Calls that write out what is meant without: each keyword with its default alone, then all of them."""
    op, known = OPERATORS[name], set[Any]()
    for sample in _samples(op, torch.float64)[:SAMPLES]:
        for names, written in _defaults(op):
            spare = {
                key: x
                for key, x in written.items()
                if key not in (*names[: len(sample.args) + 1], *sample.kwargs)
            }
            for how, function in (("function", op.op), ("method", op.method_variant)):
                for more in (*[{key: x} for key, x in spare.items()], spare):
                    form = how, len(sample.args), (*sample.kwargs,), repr(more)
                    if function is None or form in known or ("out" in more and how == "method"):
                        continue

                    def call(
                        leaf: Callable[[Tensor], Any],
                        f: Any = function,
                        sample: Any = sample,
                        more: Any = more,
                    ) -> Any:
                        args, kwargs = pytree.tree_map(
                            _given(leaf), ((sample.input, *sample.args), sample.kwargs)
                        )
                        torch.manual_seed(0)
                        return f(*args, **kwargs, **more)

                    if _is_taken(call):
                        known.add(form)
                        yield (
                            f"{name}, {how}: {len(sample.args)} by position, {[*sample.kwargs]}, {more}",
                            call,
                        )


def _defaults(op: Any) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Of each overload the names of its arguments and those with a default, and out=None."""
    found: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    if inspect.isfunction(op.op):
        parameters = inspect.signature(op.op).parameters
        empty = inspect.Parameter.empty
        given = {name: p.default for name, p in parameters.items() if p.default is not empty}
        found.append((tuple(parameters), given))
    name = (op.aten_name or op.name).replace("nn.functional.", "").replace(".", "_")
    for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
        arguments = [a for a in schema.arguments if not a.is_out]
        given = {a.name: a.default_value for a in arguments if a.has_default_value()}
        found.append((tuple(a.name for a in arguments), {**given, "out": None}))
    return found


def _is_taken(call: Call) -> bool:
    try:
        with torch.enable_grad():
            call(Tensor.requires_grad_)
    except Exception:  # not a name of this overload
        return False
    return True


def _given(leaf: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    def given(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return leaf(x.detach().clone()) if x.requires_grad else x.detach().clone()

    return given


def verdict(call: Call) -> str:
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


def counted(
    names: Sequence[str], of: Callable[[str], Iterator[Form]] = forms
) -> tuple[Counter[str], list[str]]:
    """How many forms of each verdict, and those that are neither taken nor refused by name."""
    counts, others = Counter[str](), []
    for name in names:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = list(of(name))
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
    names = [n for n in OPERATORS if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    failed = False
    for of in (forms, defaults):
        counts, others = counted(names, of)
        print(*others, sep="\n")
        print(f"{of.__name__}: {sum(counts.values())} that torch takes: {dict(counts)}", flush=True)
        failed = failed or bool(others)
    sys.exit(failed)
