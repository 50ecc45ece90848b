"""What torch refuses is refused here.

A primitive computes by a kernel of torch's, which looks at its arguments. A function that is written in terms
of primitives would go further than torch does: group norm, as means and products, takes three groups of seven
channels, and gives some number. So torch itself is asked, once for each form of arguments, with copies. It
also says of which dtype the result is, where that is not certain, and which arguments it has no derivative
for (class weights), or whether integers were made of a value that requires a gradient: it would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Of the tensors in a result; ``None`` where all arguments are of one dtype.
Dtypes: TypeAlias = Sequence[torch.dtype] | None

# Of functions those that are written in terms of primitives, and forms of arguments that torch takes.
WRITTEN: set[Callable[..., Any]] = set()
_taken: dict[Any, Dtypes] = {}
MOST = 10_000  # forms to remember
KNOWN_BY_VALUE = frozenset({int, str, type(None)})  # 1.0 and True are equal to 1, which they may not replace


def ask(func: Any, args: Any, kwargs: Any) -> Dtypes:
    """Raise what torch raises of such arguments: shapes, dtypes, and all that is no tensor."""
    form = (func, torch.is_grad_enabled(), *map(_form, args), *kwargs, *map(_form, kwargs.values()))
    try:
        if form in _taken:
            return _taken[form]
    except TypeError:  # something that has no hash
        return None
    if len(_taken) > MOST:
        _taken.clear()
    dtypes = _taken[form] = try_by_torch(func, args, kwargs)
    return dtypes


def try_by_torch(func: Any, args: Any, kwargs: Any) -> Dtypes:
    """Call a function of torch with copies, and leave no trace: no argument is changed."""
    flat, structure = pytree.tree_flatten((args, kwargs))
    if any(getattr(x, "is_formula", False) for x in flat):
        return None
    given = [held(x).detach() if isinstance(x, Tensor) else x for x in flat]
    tensors = [x for x in given if isinstance(x, Tensor)]
    plain = all(type(x) is Tensor and x.layout == torch.strided for x in tensors)
    if not plain or any(isinstance(x, torch.Generator) for x in given):
        return None

    def results_of(given: list[Any]) -> list[Any]:
        """And the first argument, which may have been written to."""
        copies = [x.clone() if isinstance(x, Tensor) else x for x in given]
        args, kwargs = pytree.tree_unflatten(copies, structure)
        with same_random_numbers(tensors), torch._C.DisableTorchFunction():
            return [*pytree.tree_leaves(func(*args, **kwargs)), copies[0]]

    if torch.is_grad_enabled():  # of some arguments torch has no derivative, and takes none that asks for one
        for asked, x in zip(flat, given, strict=True):
            if isinstance(x, Tensor) and asked.requires_grad:
                x.requires_grad_()
    *results, first = results_of(given)
    refuse_integers([*results, first])
    if len({x.dtype for x in tensors}) < 2:
        return None
    return [y.dtype for y in results if isinstance(y, Tensor)]


def is_of_integers(x: Any) -> bool:
    """Or of booleans: a tensor that has no gradient."""
    return isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())


def refuse_integers(results: Iterable[Any]) -> None:
    """What torch raises, at the latest when it computes with them, of integers that require a gradient."""
    for y in results:
        if is_of_integers(y) and y.requires_grad:
            raise RuntimeError(
                f"Autograd not support dtype: {y.dtype}, which a value that requires a gradient is written "
                "to; write its x.detach(), or to a tensor of floating-point numbers"
            )


def same_random_numbers(tensors: Iterable[Tensor]) -> AbstractContextManager[None]:
    """After the block those of the CPU and of these tensors' devices go on as before it."""
    return torch.random.fork_rng([x.device for x in map(held, tensors) if x.is_cuda])


def in_dtypes(result: Any, dtypes: Dtypes) -> Any:
    """A result as torch has it."""
    if dtypes is None:
        return result
    remaining = iter(dtypes)

    def converted(y: Tensor) -> Tensor:
        dtype = next(remaining, y.dtype)
        return y if y.dtype == dtype else y.to(dtype)

    return pytree.tree_map_only(Tensor, converted, result)


def held(x: Any) -> Any:
    """The tensor at the bottom of a traced value."""
    while type(x) is not Tensor and (held := getattr(x, "_data", None)) is not None:
        x = held
    return x


def _form(x: Any) -> Any:
    kind = type(x)
    if kind in KNOWN_BY_VALUE:
        return x
    if isinstance(x, Tensor):
        requires_grad, x = x.requires_grad, held(x)
        return x.shape, x.dtype, x.device, requires_grad
    if kind in (tuple, list):
        return tuple(map(_form, x))
    if kind is slice:
        return kind, x.start, x.stop, x.step
    return kind, x
