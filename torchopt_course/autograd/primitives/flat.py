"""Results that do not move with their arguments: the gradient is zero, or an error, as torch has it.

Samples of a distribution and what a comparison writes into a tensor have a gradient of zeros, so that a loss
can be differentiated that is made of nothing else. Of counts and of unique numbers torch says at the backward
pass that it knows no derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..decompose import stands_for
from ..dispatch import named, register
from ..traced import Value, all_raw, is_tensor, raw
from .table import primitive
from .writing import overwrite


@primitive(
    value=lambda g: g,
    x=lambda g, x_shape, x_dtype, x_device: torch.zeros(x_shape, dtype=x_dtype, device=x_device),
    jvp=lambda value_dot: value_dot,
)
def unmoved(value: Tensor, x: Tensor) -> Tensor:
    """A value that was made of x, and stays as it is when x moves a little."""
    return value


def _refused(name: str) -> NoReturn:
    raise NotImplementedError(f"the derivative for {name} is not implemented, in torch neither")


@primitive(value=lambda g: g, x=lambda g, name: _refused(name))
def underivable(value: Tensor, x: Tensor, name: str) -> Tensor:
    """A value that was made of x in a way that has no derivative: an error, once one is asked for."""
    return value.clone()


def plainly(function: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a function makes of the numbers alone."""
    return function(*map(all_raw, args), **{key: all_raw(arg) for key, arg in kwargs.items()})


def unmoved_by(value: Value, others: Iterable[Any]) -> Value:
    """Numbers that were made of others, some of which may have a past."""
    for x in others:
        if is_tensor(x) and x.requires_grad and value.is_floating_point():
            value = unmoved(value, x)
    return value


def _sampled(function: Any) -> Any:
    def sample(*args: Any, **kwargs: Any) -> Value:
        return unmoved_by(plainly(function, args, kwargs), (*args, *kwargs.values()))

    return sample


def _without_derivative(function: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        sources = [x for x in pytree.tree_leaves((args, kwargs)) if is_tensor(x) and x.requires_grad]

        def known_to_be_made_of_them(y: Value) -> Value:
            for x in sources if y.is_floating_point() else ():
                y = underivable(y, x, function.__name__)
            return y

        return pytree.tree_map_only(Tensor, known_to_be_made_of_them, plainly(function, args, kwargs))

    return make


def _bernoulli(function: Any) -> Any:
    """Where the probability is the tensor. With ``p`` the tensor only says the shape."""
    of_tensor, of_shape = _sampled(function), _without_derivative(function)
    return lambda input, *p, **named: (of_shape if p or "p" in named else of_tensor)(input, *p, **named)


NAMES = {
    _sampled: ("normal", "poisson"),
    _bernoulli: ("bernoulli",),
    _without_derivative: (
        *("binomial", "bincount", "geqrf", "heaviside", "histogram"),
        *("unique", "unique_consecutive"),
    ),
}
for _meaning, _names in NAMES.items():
    for _function in (function for name in _names for function in named(name)):
        register(_meaning(_function), [_function])


@stands_for("fill")
def _fill(x: Value, value: Value) -> Value:
    return overwrite(x, torch.zeros_like(raw(x)) + value)


@stands_for("zero")
def _zero(x: Value) -> Value:
    return overwrite(x, torch.zeros_like(raw(x)))
