"""Weight decay apart from the gradient, and the groups of those that decay and those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor
from torch.nn import Module

from ..validation.options import at_least_zero
from .transform import Transform, Value


class decoupled_decay(Transform):
    r"""Shrink the weights in each step, apart from the gradient.

    .. math:: \theta \leftarrow \theta_\text{new} - \eta \lambda \theta

    with the group's learning rate η: what ``AdamW`` does, for any optimizer. :func:`decay_groups` makes the
    groups of those that decay and those that do not, with ``option="decoupled_decay"``.

    Args:
        decoupled_decay: λ, an option of each group; 0 for no decay.

    Raises:
        ValueError: it is negative or NaN.

    Source: Loshchilov, Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019.
    """

    def __init__(self, decoupled_decay: float) -> None:
        super().__init__(decoupled_decay=decoupled_decay)

    @staticmethod
    def coefficients(lr: Value, decoupled_decay: Value) -> dict[str, Any]:
        return {"rate": lr * decoupled_decay if decoupled_decay else None}

    @staticmethod
    def after(p: Value, new: Value, g: Value, rate: Value) -> Value:
        return new if rate is None else new - rate * p

    def check_options(self, options: Mapping[str, Any]) -> None:
        at_least_zero("decoupled_decay", options["decoupled_decay"])


def decay_groups(
    model: Module | Iterable[tuple[str, Tensor]],
    weight_decay: float,
    *,
    no_decay: Iterable[str] | Callable[[str, Tensor], bool] = (),
    option: str = "weight_decay",
) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and the like, which decay; biases and weights of norms, which do not.

    A parameter does not decay if it has fewer than two dimensions, or if its name fits one of ``no_decay``::

        optimizer = AdamW(decay_groups(model, 0.1, no_decay=["*embedding*"]), lr=3e-4)

    Args:
        model: a module, or its parameters with their names, as of ``model.named_parameters()``.
        weight_decay: of the first group; the second gets 0.
        no_decay: names, or patterns of :mod:`fnmatch`, such as ``"embedding.*"``; or a function of name and
            parameter that decides alone, whatever the dimensions.
        option: the option that is set, ``"decoupled_decay"`` for the transform of that name.

    Returns:
        The groups, with named parameters; one of them alone if the other would be empty.

    Raises:
        TypeError: parameters without names.
        ValueError: one of ``no_decay`` fits no parameter; a negative decay, or NaN; no parameters.
    """
    at_least_zero(f"{option} value", weight_decay)
    named = list(model.named_parameters() if isinstance(model, Module) else model)
    for i, each in enumerate(named):
        if not (isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str)):
            raise TypeError(f"parameter {i} has no name: give a module, or its named_parameters()")
    if not named:
        raise ValueError("no parameters")
    patterns = [no_decay] if isinstance(no_decay, str) else no_decay
    is_free = patterns if callable(patterns) else _fits(patterns, named)
    groups: dict[float, list[tuple[str, Tensor]]] = {weight_decay: []}
    for name, param in named:
        groups.setdefault(0.0 if is_free(name, param) else weight_decay, []).append((name, param))
    return [{"params": members, option: decay} for decay, members in groups.items() if members]


def _fits(patterns: Iterable[str], named: Sequence[tuple[str, Tensor]]) -> Callable[[str, Tensor], bool]:
    """Whether a parameter has fewer than two dimensions, or a name that fits."""
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            names = ", ".join(name for name, _ in named[:3])
            raise ValueError(f"no parameter is called {pattern!r}; they are called {names}, ...")
    return lambda name, param: param.dim() < 2 or any(fnmatchcase(name, pattern) for pattern in patterns)
