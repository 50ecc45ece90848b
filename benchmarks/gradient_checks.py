"""How many seeded mistakes three checks of gradients find: `python -m benchmarks.gradient_checks`.

- ours: :func:`torchopt_course.testing.assert_gradients_agree`. Functions are primitives that torch can see
  into; and once more such that it cannot, so that there is no second gradient to compare with.
- ``torch.autograd.gradcheck`` with ``check_forward_ad``, and ``gradgradcheck``, of ``autograd.Function``. All
  inputs are made float64, as their documentation asks for; more than 400 elements need ``fast_mode``.
- ``jax.test_util.check_grads``, order 2: of ``custom_vjp`` where the VJP is wrong, of ``custom_jvp`` where
  the JVP is. JAX is no requirement: without it (``pip install 'jax[cpu]'``) its column is empty.

All with their default tolerances. A mistake is found if the check raises anything; on right functions that is
a false alarm. The table is printed and written to ``benchmarks/results/gradient_checks.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchopt_course.autograd import PRIMITIVES, primitive
from torchopt_course.testing import NotDifferentiable, assert_gradients_agree

from .checked_functions import Function, functions, hard_points
from .seeded_mistakes import mistakes
from .table import Table

RESULTS = Path(__file__).parent / "results"
SLOW = 400  # elements


class Torch:
    """torch under the names that :mod:`.checked_functions` uses."""

    stop = staticmethod(lambda x: x.detach())
    single = staticmethod(lambda x: x.to(torch.float32))
    double = staticmethod(lambda x: x.to(torch.float64))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


XP = Torch()


def tensors(function: Function, dtype: torch.dtype | None = None) -> list[Tensor]:
    return [torch.tensor(x, dtype=dtype) for x in function.inputs]


def as_primitive(function: Function, visible: bool) -> Callable[..., Any]:
    """The function as a primitive of ours, with names for its one or two arguments."""

    def value(*x: Tensor) -> Tensor:
        if visible:
            return function.value(XP, *x)  # type: ignore[no-any-return]
        with torch.no_grad():
            return function.value(XP, *[each.detach() for each in x])  # type: ignore[no-any-return]

    if len(function.inputs) == 1:

        @primitive(
            x=lambda g, x: function.vjp(XP, g, x)[0], jvp=lambda x_dot, x: function.jvp(XP, (x_dot,), x)
        )
        def checked(x: Tensor) -> Tensor:
            return value(x)
    else:

        @primitive(
            x=lambda g, x, y: function.vjp(XP, g, x, y)[0], y=lambda g, x, y: function.vjp(XP, g, x, y)[1],
            jvp=lambda x_dot, y_dot, x, y: function.jvp(XP, (x_dot, y_dot), x, y),
        )  # fmt: skip
        def checked(x: Tensor, y: Tensor) -> Tensor:
            return value(x, y)

    del PRIMITIVES["checked"]
    return checked


def ours(function: Function, visible: bool) -> None:
    assert_gradients_agree(as_primitive(function, visible), *tensors(function))


def gradcheck(function: Function) -> None:
    class Checked(torch.autograd.Function):
        @staticmethod
        def forward(*x: Tensor) -> Tensor:
            return function.value(XP, *x)  # type: ignore[no-any-return]

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            shares = function.vjp(XP, g, *ctx.saved_tensors)
            return shares if len(shares) > 1 else shares[0]

        @staticmethod
        def jvp(ctx: Any, *t: Tensor) -> Any:
            return function.jvp(XP, t, *ctx.saved_tensors)

    inputs = [x.requires_grad_() for x in tensors(function, torch.float64)]
    fast = sum(x.numel() for x in inputs) > SLOW
    torch.autograd.gradcheck(Checked.apply, inputs, check_forward_ad=True, fast_mode=fast)
    torch.autograd.gradgradcheck(Checked.apply, inputs, fast_mode=fast)


def check_grads(function: Function) -> None:
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads as check

    class Jax:
        stop = staticmethod(jax.lax.stop_gradient)
        single = staticmethod(lambda x: x.astype(jnp.float32))
        double = staticmethod(lambda x: x.astype(jnp.float64))

        def __getattr__(self, name: str) -> Any:
            return getattr(jnp, name)

    xp = Jax()
    inputs = [jnp.asarray(x) for x in function.inputs]
    if function.only != "jvp":
        by_vjp = jax.custom_vjp(lambda *x: function.value(xp, *x))
        by_vjp.defvjp(lambda *x: (function.value(xp, *x), x), lambda x, g: function.vjp(xp, g, *x))
        check(by_vjp, inputs, order=2, modes=["rev"])
    if function.only != "vjp":
        by_jvp = jax.custom_jvp(lambda *x: function.value(xp, *x))
        by_jvp.defjvp(lambda x, t: (function.value(xp, *x), function.jvp(xp, t, *x)))
        check(by_jvp, inputs, order=2, modes=["fwd", "rev"])


CHECKS: dict[str, Callable[[Function], None]] = {
    "ours": lambda function: ours(function, True),
    "ours, torch cannot see": lambda function: ours(function, False),
    "gradcheck": gradcheck,
    "check_grads": check_grads,
}


def raises(check: Callable[[Function], None], function: Function) -> str:
    """The first line of what a check says, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotDifferentiable)
            check(function)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def count(checked: Sequence[Function], checks: Sequence[str], verbose: bool) -> dict[str, dict[str, int]]:
    """For each kind how many there are, and how many of them each check has complained of."""
    found: dict[str, dict[str, int]] = {}
    for function in checked:
        row = found.setdefault(function.kind, {"": 0} | dict.fromkeys(checks, 0))
        row[""] += 1
        for name in checks:
            said = raises(CHECKS[name], function)
            row[name] += bool(said)
            if verbose and bool(said) == (function.kind == "right"):
                print(f"{function.kind} ({function.name}), {name}: {said or 'not found'}")
    return found


def table(title: str, what: str, found: dict[str, dict[str, int]], note: str) -> Table:
    """A line for each kind, and one for all of them."""

    def line(kind: str, numbers: dict[str, int]) -> list[str]:
        return [kind, *(str(numbers.get(name, "")) for name in ("", *CHECKS))]

    total = {name: sum(row[name] for row in found.values()) for name in next(iter(found.values()))}
    rows = [line(kind, row) for kind, row in found.items()]
    return Table(title, [what, "number", *CHECKS], [*rows, line("all", total)], note)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="draws which input has the wrong gradient")
    parser.add_argument("--verbose", action="store_true", help="name what was missed, and each false alarm")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for gradient_checks.md")
    options = parser.parse_args(arguments)
    checks = [name for name in CHECKS if name != "check_grads" or importlib.util.find_spec("jax")]
    if "check_grads" in checks:
        import jax

        jax.config.update("jax_enable_x64", True)
    wrong = count(mistakes(options.seed), checks, options.verbose)
    right = {"points that are hard": list(hard_points()), "ordinary points": list(functions().values())}
    alarms = {
        kind: count([replace(each, kind="right") for each in each_kind], checks, options.verbose)["right"]
        for kind, each_kind in right.items()
    }
    tables = [
        table("Mistakes found", "mistake", wrong, "A mistake is found if the check raises anything."),
        table(
            "False alarms", "right functions at", alarms,
            "Hard points: kinks, round-off, steep slopes, the edge of the domain, float32.",
        ),
    ]  # fmt: skip
    for each in tables:
        print(f"\n{each.as_text()}", flush=True)
    versions = f"torch {version('torch')}" + (f", jax {version('jax')}" if "check_grads" in checks else "")
    head = (
        f"# Checks of gradients\n\n`python -m benchmarks.gradient_checks --seed {options.seed}`, {versions}."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gradient_checks.md"
    path.write_text("\n\n".join([head, *(each.as_markdown() for each in tables)]) + "\n", encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
