"""In-place operations on variables, and what their aliases and views see of them.

``h.mul_(2)`` computes ``h * 2``, writes it into h's memory, and gives h the past of the result. If h is a
view, its base gets a new past as well: a :func:`write_view` of the old base and the new part. Other views of
the base notice when they are asked for their own past, and take themselves anew (:class:`.views.Follows`). A
plain tensor that a variable is written into becomes a variable, as a tensor does in torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from . import decompose, dispatch
from .dispatch import TABLE, means, named
from .forward import Dual, DualView
from .primitives.flat import plainly, unmoved_by
from .primitives.indexing import is_basic, plain_index
from .primitives.writing import overwrite, put_items, strided_view, write_view
from .refusals import ask, is_of_integers
from .switched_off import is_constant
from .traced import Traced, Value, in_memory, raw
from .variable import Variable, View, lift
from .views import Follows, Step, memory_of


def write(x: Value, new: Value, name: str) -> Value:
    """Write a result into the memory of x, which gets its past, and so do all that share the memory.

    Args:
        x: a traced value, or a plain tensor, which becomes one.
        new: what to write; made from the old value of x (see :func:`before`) or not.
        name: of the operation, for errors.

    Raises:
        RuntimeError: x is a leaf, or a view of one, or an inference tensor; the result has another shape; x
            is a plain tensor whose memory other plain tensors share, which could not become variables.
    """
    if not records(x, new) or (is_constant(x) and is_constant(new)):
        raw(x).copy_(raw(new))
        if torch.is_grad_enabled() and isinstance(x, Traced):
            x.note_write()  # views from before it was detached would have to follow
        return x
    base, steps = _base(x, name)
    if raw(x).is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{name}: an inference tensor can be written to in inference mode alone; x.clone() is none"
        )
    new = _fitted(new, x, name)
    with torch.no_grad():
        raw(x).detach().copy_(raw(new))
    whole = write_view(base, new, tuple(steps), memory_of(base)) if steps else new
    if not isinstance(base, Traced):
        _become(base, Variable if isinstance(whole, Variable) else Dual)
    base.note_write()
    base.adopt(whole)
    if not isinstance(x, Traced):
        _become(x, View if isinstance(whole, Variable) else DualView)
        x._set(base, steps[0])
    elif x is not base:
        x.adopt(new)
    return x


def _base(x: Value, name: str) -> tuple[Value, list[Step]]:
    """Whose memory x is, and how x was taken from it; checked that one may write there."""
    base, steps = x, []
    if isinstance(x, Follows):
        base, steps = x.base, x.steps
    elif not isinstance(x, Traced) and x._is_view():
        base = x._base
        if base.requires_grad and x.grad_fn is None:
            raise RuntimeError(
                "A view was created in no_grad mode and is being modified inplace with grad mode enabled "
                f"({name}). Move both inside of no_grad(), or take the view outside"
            )
        offset = x.storage_offset() - raw(base).storage_offset()
        steps = [(strided_view, (x.shape, x.stride(), offset, memory_of(base)))]
    is_leaf = base.is_leaf and x.requires_grad if not isinstance(base, Dual) else False
    if is_leaf:
        what = "a leaf Variable" if base is x else "a view of a leaf Variable"
        raise RuntimeError(
            f"{what} that requires grad is being used in an in-place operation ({name}); use the operation "
            "that gives a new tensor, or torch.no_grad() to change the values alone"
        )
    if not isinstance(base, Traced):
        sharing = torch._C._storage_Use_Count(x.untyped_storage()._cdata) - 1  # this very handle counts too
        if sharing > (1 if base is x else 2):
            raise RuntimeError(
                f"{name} writes a variable into a plain tensor {tuple(x.shape)} whose memory other tensors "
                "share (views or x.detach()), and they would not see its derivative: write into a tensor "
                "that nobody has taken views of yet, such as x.clone()"
            )
    return base, steps


def _fitted(new: Value, x: Value, name: str) -> Value:
    """The new value as x can hold it: of its dtype, and traced if x is."""
    if not isinstance(new, Tensor):
        new = torch.full_like(raw(x), new)
    if new.shape != x.shape:
        raise RuntimeError(
            f"{name}: output with shape {list(x.shape)} doesn't match the broadcast shape {list(new.shape)}"
        )
    if new.dtype != x.dtype:
        if not x.dtype.is_floating_point:
            raise RuntimeError(f"{name}: result type {new.dtype} can't be cast to {x.dtype}")
        new = new.to(x.dtype)
    if isinstance(new, Traced):
        if isinstance(x, Traced) and new.level.depth > max(x.level.depth, 0):
            raise RuntimeError(
                f"{name} writes a value of an inner transform into one from outside, which would outlive it; "
                "use the operation that gives a new tensor"
            )
        if is_constant(x) or new.level is x.level:
            return new
    return overwrite(x, new)


def _become(x: Tensor, kind: type[Traced]) -> None:
    """A plain tensor turns into a traced value, the same object with the same memory."""
    if type(x) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        raise RuntimeError(f"a {type(x).__name__} cannot become a variable; write into a plain tensor")
    x._data = x.detach()  # type: ignore[attr-defined]
    x.__class__ = kind


# -- torch's names -------------------------------------------------------------------------------------------

RANDOM = frozenset(
    ["uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"]
)


def records(x: Value, *others: Any) -> bool:
    """Whether somebody wants to know the derivative: under no_grad only forward mode does."""
    return torch.is_grad_enabled() or any(isinstance(each, Dual) for each in (x, *others))


def before(x: Value) -> Value:
    """The value of x as it is now, apart from its memory."""
    x = lift(x) if not isinstance(x, Traced) and x.requires_grad else x
    return in_memory(x, raw(x).clone())


def also_in_place(meaning: Callable[..., Value]) -> Callable[..., Value]:
    """Decorator: the function takes ``inplace=True``, as torch's activations do."""

    @functools.wraps(meaning)
    def either(input: Value, *args: Any, inplace: bool = False, **kwargs: Any) -> Value:
        if not inplace:
            return meaning(input, *args, **kwargs)
        old = before(input)
        new = meaning(old, *args, **kwargs)
        # Dropout may have nothing to do; then nothing is written.
        return input if new is old else write(input, new, f"{meaning.__name__.strip('_')}_")

    return either


def in_place(func: Any) -> Callable[..., Any] | None:
    """``x.mul_(y)`` and ``x *= y``: compute ``x * y`` and write it into x."""
    if not dispatch.writes(func):
        return None
    name = func.__name__
    if name in RANDOM:
        return lambda x, *args, **kwargs: _fill_at_random(func, x, *args, **kwargs)
    if name in RESHAPES:
        return lambda x, *args, **kwargs: _reshape(func, x, *args, **kwargs)
    plain_name = f"__{name[3:]}" if name.startswith("__i") else name[:-1]
    function = next((f for f in named(plain_name) if f in TABLE and not dispatch.is_attribute(f)), None)
    if function is None:
        return None

    def compute_and_write(x: Any, *args: Any, **kwargs: Any) -> Any:
        if not records(x, *args, *kwargs.values()):
            plainly(func, (raw(x), *args), kwargs)
            return x
        if is_of_integers(x):
            ask(func, (x, *args), kwargs)  # before anything is written
        new = dispatch.call(function, before(x), *args, **kwargs)
        if type(new) is Tensor and x.is_floating_point() and "logical" not in name:  # eq_, gt_, ...
            new = unmoved_by(new.to(x.dtype), (x, *args, *kwargs.values()))
        return write(x, new, name)

    return compute_and_write


dispatch.FINDERS.insert(0, in_place)


RESHAPES = frozenset(("unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "as_strided_"))


def _reshape(func: Any, x: Value, *args: Any, **kwargs: Any) -> Value:
    """``x.t_()``: x becomes a view of what it was. Views of it that were taken before cannot follow."""
    name = func.__name__
    if not records(x):
        x.data = func(raw(x).detach(), *args, **kwargs)
        return x
    base, _ = _base(x, name)
    if isinstance(x, Follows):
        before = type(x).taken(x.above, x.step, x._data, x._past)
        view = TABLE[getattr(Tensor, name[:-1])](before, *args, **kwargs)
        x.above, x.step = view.above, view.step
    else:
        view = TABLE[getattr(Tensor, name[:-1])](x, *args, **kwargs)
    x.data = view._data
    x.adopt(view)
    base.note_write()
    x.reshaped = base.times_written
    if isinstance(x, Follows):
        x.seen = base.times_written
    return x


def _fill_at_random(func: Any, x: Value, *args: Any, **kwargs: Any) -> Value:
    if not records(x):
        plainly(func, (raw(x), *args), kwargs)
        return x
    if is_of_integers(x):
        ask(func, (x, *args), kwargs)
    new = plainly(func, (raw(x).clone(), *args), kwargs)
    return write(x, unmoved_by(new, (x, *args, *kwargs.values())), func.__name__)


@means("zero_", checked=True)
def _zero(x: Value) -> Value:
    return _fill(x, 0.0)


@means("fill_")
def _fill(x: Value, value: Value) -> Value:
    if not records(x, value):
        raw(x).fill_(raw(value))
        return x
    if isinstance(value, Tensor):
        value = overwrite(x, value.to(raw(x).device, x.dtype).expand(x.shape))
    return write(x, value, "fill_")


@means("copy_", checked=True)
def _copy(x: Value, src: Value, non_blocking: bool = False) -> Value:
    src = src if isinstance(src, Tensor) else torch.as_tensor(src)
    if not records(x, src):
        raw(x).copy_(raw(src), non_blocking)
        return x
    return write(x, overwrite(x, src.to(raw(x).device, x.dtype).expand(x.shape)), "copy_")


@means(Tensor.__setitem__, checked=True)
def _set_item(x: Value, index: Any, value: Value) -> None:
    """``x[index] = value``: written through a view where the index takes one."""
    index = plain_index(index)
    if not records(x, value):
        raw(x)[index] = raw(value)
        return
    if is_of_integers(x):
        ask(Tensor.__setitem__, (x, index, value), {})
    if not isinstance(value, Tensor):
        value = torch.full((), value, dtype=x.dtype, device=raw(x).device)
    if is_basic(index):
        part = x[index]
        while len(value.shape) > len(part.shape) and value.shape[0] == 1:
            value = value[0]
        _copy(part, value)
    else:
        write(x, put_items(before(x), value, index), "x[index] = value")


def _operator(operator: Any, name: str) -> Callable[..., Any]:
    """``x.mul_(y)``: compute ``x * y`` and write it into x."""
    if name in RESHAPES:
        return decompose.refused(name)  # the stand-in would have to change with it
    function = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    method = getattr(Tensor, name, None)
    names = [argument.name for argument in operator._schema.arguments]

    def compute_and_write(x: Value, *args: Any, **kwargs: Any) -> Value:
        if not any(isinstance(each, Traced) for each in pytree.tree_leaves((x, args))):
            return operator(x, *args, **kwargs)
        if isinstance(x, list):  # torch._foreach_mul_
            raise decompose.Unknown(str(operator))
        if method is not None and dispatch.look_up(method) is not None:
            return dispatch.call(method, x, *args, **kwargs)
        if function is None:
            raise decompose.Unknown(str(operator))
        by_name = dict(zip(names, (before(x), *args), strict=False)) | kwargs
        return write(x, decompose.through_torch(function, (), by_name), name)

    return compute_and_write


decompose.WRITERS.append(_operator)
