"""What torch's functions mean for traced values.

An entry in one table; else torch's own Python body, or the simpler operations that torch takes the function
apart into, run on traced values; else an error that names the function.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from .memory import as_taken_under_no_grad
from .refusals import WRITTEN, ask, in_dtypes

# torch function -> what to call instead of it: a primitive, or a function written in terms of primitives.
TABLE: dict[Any, Callable[..., Any]] = {}

# Torch functions without an entry, which torch is asked to take apart.
COMPOSITES: set[Any] = set()

# How that is done; decompose.py puts it here.
TAKEN_APART: list[Callable[[Any, Any, Any], Any]] = []

# Where one operation may go by the same name: torch.relu, Tensor.relu, torch.nn.functional.relu, ...
NAMESPACES: tuple[Any, ...] = (
    torch,
    Tensor,
    functional,
    torch._C._nn,
    torch._C._VariableFunctions,
    torch.special,
    torch.linalg,
)


ARITHMETIC = frozenset({"add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow"})

# Attributes that are other values made from the tensor's.
DIFFERENTIABLE = frozenset(getattr(Tensor, name).__get__ for name in ("imag", "real", "T", "mT", "H", "mH"))


PATHS = {
    "torch": torch,
    "torch.nn.functional": functional,
    "torch.linalg": torch.linalg,
    "torch.special": torch.special,
    "torch.fft": torch.fft,
    "torch.Tensor": Tensor,
    "torch._C._nn": torch._C._nn,
}


def named(name: str) -> list[Any]:
    """Every torch function of this name; for an attribute of tensors what torch calls when it is read."""
    found = [getattr(space, name) for space in NAMESPACES if hasattr(space, name)]
    return [
        each if callable(each) else each.__get__
        for each in found
        if hasattr(each, "__get__") or callable(each)
    ]


def register(meaning: Callable[..., Any], overrides: Iterable[Any]) -> None:
    """Let `meaning` stand for torch functions, given as such or by name."""
    for override in overrides:
        for function in named(override) if isinstance(override, str) else [override]:
            TABLE[function] = meaning


def means(*names: Any, checked: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: this function, written with torch functions that are in the table, stands for `names`.

    Before it runs, torch is asked whether it takes such arguments, unless it is certain to raise by itself
    (``checked``), as one that hands all of them to a kernel of torch's.
    """

    def enter(meaning: Callable[..., Any]) -> Callable[..., Any]:
        register(meaning, names)
        if not checked:
            WRITTEN.add(meaning)
        return meaning

    return enter


# Those who may know the meaning of a torch function that has no entry; they enter themselves.
BODIES: set[Any] = set()  # what body_of has found
FINDERS: list[Callable[[Any], Callable[..., Any] | None]] = []


def look_up(func: Any) -> Callable[..., Any] | None:
    """The meaning of a torch function, if there is one; it gets an entry."""
    meaning = TABLE.get(func)
    if meaning is None and func not in COMPOSITES:
        meaning = next((found for finder in FINDERS if (found := finder(func)) is not None), None)
        if meaning is not None:
            TABLE[func] = meaning
        else:
            COMPOSITES.add(func)
    return meaning


def call(func: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call a torch function some of whose arguments are traced."""
    return answer(func, args, kwargs)


def answer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same as torch asks for it."""
    if kwargs and "out" in kwargs:
        if kwargs["out"] is not None:
            return otherwise(func, args, kwargs)
        kwargs = {key: arg for key, arg in kwargs.items() if key != "out"}  # said as if it were not
    meaning = TABLE.get(func) or look_up(func)
    if meaning is not None:
        dtypes = ask(func, args, kwargs) if meaning in WRITTEN else None
        try:
            result = meaning(*args, **kwargs) if kwargs else meaning(*args)
            return result if dtypes is None else in_dtypes(result, dtypes)
        except TypeError as error:
            if not did_not_bind(error):
                raise
        except RuntimeError as error:
            if "NestedTensorImpl" in str(error):  # it has no shape
                raise NotImplementedError(f"{path_of(func)} of a variable and a nested tensor") from None
            raise
    return otherwise(func, args, kwargs)


def otherwise(func: Any, args: Any, kwargs: Any) -> Any:
    """No entry, or called in a form that it does not take: torch reads the arguments and takes it apart."""
    if is_attribute(func):
        raise NotImplementedError(unknown(func))
    values, out = pytree.tree_leaves((args, kwargs)), pytree.tree_leaves(kwargs.get("out", ()))
    nothing_recorded = not torch.is_grad_enabled() and not any(
        getattr(x, "is_forward_mode", False) for x in values
    )
    of_integers = bool(out) and not any(x.is_floating_point() or x.is_complex() for x in out)
    if nothing_recorded or of_integers:
        plain = pytree.tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if kwargs.get("out") is not None:
            return kwargs["out"]
        leaves = zip(values, pytree.tree_leaves(plain), strict=True)
        variables = [y for x, y in leaves if isinstance(x, Tensor) and type(x) is not Tensor]
        return args[0] if writes(func) else as_taken_under_no_grad(result, variables)
    if kwargs.get("out") is not None:
        raise RuntimeError(
            f"{path_of(func)}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad"
        )
    if func not in COMPOSITES and "input" in kwargs and not args:  # torch's name for what comes first
        return call(func, kwargs["input"], **{key: arg for key, arg in kwargs.items() if key != "input"})
    if (
        func not in COMPOSITES and len(args) == 1 and "other" in kwargs and "input" not in kwargs
    ):  # the second
        return call(
            func, *args, kwargs["other"], **{key: arg for key, arg in kwargs.items() if key != "other"}
        )
    return TAKEN_APART[0](func, args, kwargs)


class BadArguments(TypeError):
    """Not the arguments that a primitive takes."""


def bound(meaning: Callable[..., Any], args: Any, kwargs: Any, otherwise: Exception) -> Any:
    """Call a function that may not take such arguments."""
    try:
        return meaning(*args, **kwargs)
    except TypeError as error:
        if not did_not_bind(error):
            raise
    raise otherwise


def did_not_bind(error: TypeError) -> bool:
    """Whether a call failed at its arguments, before anything of the function ran."""
    inside = error.__traceback__ and error.__traceback__.tb_next
    return inside is None or isinstance(error, BadArguments)


def is_attribute(func: Any) -> bool:
    """Whether a function reads or sets what says nothing of a tensor's value, as its device."""
    return (
        getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__") and func not in DIFFERENTIABLE
    )


def writes(func: Any) -> bool:
    """Whether a function changes its first argument."""
    if getattr(func, "__module__", "") == "torch.nn.init":
        return False
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name[3:-2] in ARITHMETIC)
    return name.endswith("_")


def body_of(func: Any) -> Callable[..., Any] | None:
    """A torch function written in Python, without its first line that asks who overrides it.

    ``torch.nn.functional.multi_head_attention_forward`` and the like begin with
    ``if has_torch_function(...): return handle_torch_function(...)``, which brought us here. What follows is
    made of simpler torch functions, and those have entries. So the same code runs again, with a
    ``has_torch_function`` that says no.
    """
    func = inspect.unwrap(func) if callable(func) else func
    if not isinstance(func, types.FunctionType) or func.__qualname__.startswith("Tensor."):
        return None  # Tensor's own Python methods are about the object, not about its value
    asks = [name for name in func.__code__.co_names if name.startswith("has_torch_function")]
    if not asks or not func.__module__.startswith("torch") or not func.__globals__.keys() >= set(asks):
        return None
    scope = {**func.__globals__, **dict.fromkeys(asks, lambda *args: False)}
    body = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    BODIES.add(body)
    return body


def attribute(func: Any) -> Callable[..., Any] | None:
    """Other attributes are those of the plain tensor: there is nothing to differentiate in a device."""
    if not is_attribute(func) or func.__name__ != "__get__":
        return None
    return lambda x, *owner: func(x.detach())


def initializer(func: Any) -> Callable[..., Any] | None:
    """``torch.nn.init`` sets values and records nothing."""
    if getattr(func, "__module__", "") != "torch.nn.init":
        return None

    def initialize(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        func(tensor.detach(), *args, **kwargs)
        return tensor

    return initialize


FINDERS += [initializer, body_of, attribute]


def unknown(func: Any, step: str = "") -> str:
    """What to say of a function without an entry, or made of a step without one."""
    path = path_of(func)
    name = path.rpartition(".")[2].strip("_")
    made_of = f", which is made of {step}" if step and step.split(".")[1] != name else ""
    return (
        f"no derivative is known for {path}{made_of}. Compute with x.detach() if it needs none; or add it:"
        "\n\n"
        f"    from torchopt_course.autograd import primitive\n\n"
        f"    @primitive({path}, x=lambda g, x: ...)  # the gradient of x, given the result's, g\n"
        f"    def {name}(x):\n"
        f"        return {path}(x)\n"
    )


def path_of(func: Any) -> str:
    """How a user writes a torch function."""
    if getattr(func, "__name__", "") == "__get__":
        return f"torch.Tensor.{getattr(func.__self__, '__name__', '?')}.__get__"
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return f"torch.ops.{func}"
    for path, space in PATHS.items():
        for name in dir(space):
            if getattr(space, name, None) == func:
                return f"{path}.{name}"
    if hasattr(torch, getattr(func, "__name__", "?")):
        return f"torch.{func.__name__}"  # the function behind the one that users call
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or str(func)
    return f"{getattr(func, '__module__', None) or 'torch'}.{name}"
