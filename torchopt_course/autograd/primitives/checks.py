"""What can go wrong in a primitive of one's own, named where it happens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..traced import is_tensor

JVPS = ("elementwise", "linear", "multilinear")


def check_jvp(name: str, jvp: Any, parameters: Iterable[str]) -> None:
    """A JVP is a function of what there is, or one of the words for how it follows."""
    if callable(jvp):
        known = {"ans", *parameters, *(f"{each}_dot" for each in parameters)}
        for asked in inspect.signature(jvp).parameters:
            if asked not in known:
                raise TypeError(
                    f"the JVP of {name} asks for {asked!r}, which is none of {', '.join(sorted(known))}"
                )
    elif jvp is not None and jvp not in JVPS:
        raise TypeError(f"the JVP of {name} must be a function or one of {', '.join(JVPS)}, not {jvp!r}")


def checked(
    forward: Callable[..., Any], aux: Sequence[str], rules: Any, jvp: Any
) -> tuple[Callable[..., Any], Any, Any]:
    """The function, its VJPs and its JVP, whose results are looked at."""
    name = forward.__name__
    value = _returns_tensor(forward, f"{name}() must return one tensor", first=bool(aux))
    if isinstance(rules, Mapping):
        rules = {
            arg: _returns_tensor(rule, f"the VJP of {name} for {arg!r} must return a tensor")
            for arg, rule in rules.items()
        }
    if callable(jvp):
        jvp = _returns_tensor(jvp, f"the JVP of {name} must return a tensor")
    return value, rules, jvp


def _returns_tensor(function: Callable[..., Any], must: str, first: bool = False) -> Callable[..., Any]:
    @functools.wraps(function)
    def looked_at(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        found = result[0] if first else result
        if not is_tensor(found):
            what = f"a {type(found).__name__}" if found is not None else "None"
            if isinstance(found, tuple | list):
                what += f" of {len(found)}; a primitive has one result, so make one of each, or stack them"
            raise TypeError(f"{must}, not {what}")
        return result

    return looked_at
