"""Options as Python's numbers; checks of options and of the groups that hold them, with torch's errors."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from torch import Tensor

_NO_NUMBERS = (str, bytes, complex, Mapping, tuple, list)


def options_of(arguments: Mapping[str, Any], *first: str) -> dict[str, Any]:
    """The options of a constructor, which so stand once, in its signature.

    ``super().__init__(params, options_of(locals()))`` gives the groups all arguments but ``self`` and
    ``params``, in their order; the items of ``**kwargs`` count by their own names. Other local variables
    would be options too, so the constructor must not have any yet. (An argument may have got another value.)

    Args:
        arguments: ``locals()``, in a constructor that calls ``super()`` without arguments.
        first: options to begin with, for groups in another order than the signature.

    Raises:
        TypeError: not the variables of such a constructor, or options without a name (``*args``).
        KeyError: one of ``first`` is no argument.
    """
    if not {"self", "params", "__class__"}.issubset(arguments):
        raise TypeError(
            "options_of expects the locals() of a constructor that has the arguments self and params and "
            f"calls super(), got {', '.join(map(repr, arguments)) or 'nothing'}"
        )
    cls = arguments["__class__"]
    parameters = inspect.signature(cls.__init__).parameters
    options = {name: arguments[name] for name in first}
    for name, value in arguments.items():
        kind = parameters[name].kind if name in parameters else inspect.Parameter.KEYWORD_ONLY
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError(f"{cls.__name__}.__init__ takes *{name}, expected each option by its name")
        options.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    return {name: value for name, value in options.items() if name not in ("self", "params", "__class__")}


def plain(value: Any) -> Any:
    """An option as checkpoints can keep it: ``torch.load(weights_only=True)`` refuses what is not torch's.

    Numbers of numpy and others become Python's; arrays, and sequences of numbers such as OmegaConf's lists,
    become tuples. Tensors, text and whatever is no number stay as they are.
    """
    if value is None or isinstance(value, Tensor | str | bytes) or type(value) in (float, int, bool):
        return value
    if hasattr(value, "tolist") and hasattr(value, "size"):  # a numpy array, or a scalar, which is like one
        value = value.item() if value.size == 1 else tuple(value.tolist())
    if isinstance(value, bool):
        return value
    if isinstance(value, Real | Decimal):
        return operator.index(value) if hasattr(value, "__index__") else float(value)
    if isinstance(value, Mapping):
        changed = {name: plain(item) for name, item in value.items()}
        same = type(value) is dict and all(changed[name] is value[name] for name in value)
        return value if same else changed
    if isinstance(value, Sequence):
        items = [plain(item) for item in value]
        if type(value) in (list, tuple) and all(map(operator.is_, items, value)):
            return value
        if isinstance(value, list):
            return items
        known = isinstance(value, tuple) or all(isinstance(item, Real | Tensor) for item in items)
        return tuple(items) if known else value
    return value


def make_plain(group: dict[str, Any]) -> None:
    """Make all options of a parameter group :func:`plain`, in place."""
    for name, value in group.items():
        if name not in ("params", "param_names"):
            group[name] = plain(value)


def pair(betas: Any) -> Any:
    """Two decay rates as torch keeps them: a tuple of two numbers, or of two 0-d tensors.

    Whatever is no pair stays as it is, for :func:`decay_rates` to refuse.
    """
    betas = plain(betas)
    if isinstance(betas, Tensor) and betas.dim():
        betas = tuple(betas)
    if isinstance(betas, tuple | list) and len(betas) == 2:
        return tuple(beta.squeeze() if isinstance(beta, Tensor) else beta for beta in betas)
    return betas


def at_least_zero(label: str, value: Any) -> None:
    """Refuse negative numbers, NaN, and what is no number.

    Args:
        label: what the message calls it.
        value: the option.

    Raises:
        ValueError: ``value`` is negative or NaN.
        TypeError: ``value`` cannot be compared with a number.
    """
    _require(label, value, "a number >= 0", lambda number: number >= 0.0)


def above_zero(label: str, value: Any) -> None:
    """Refuse zero, negative numbers, NaN, and what is no number.

    Raises:
        ValueError: ``value`` is not above zero.
        TypeError: ``value`` cannot be compared with a number.
    """
    _require(label, value, "a number > 0", lambda number: number > 0.0)


def fraction(label: str, value: Any) -> None:
    """Refuse what is not in [0, 1).

    Args:
        label: what the message calls it.
        value: the option.

    Raises:
        ValueError: ``value`` is outside of [0, 1), or NaN.
        TypeError: ``value`` cannot be compared with a number.
    """
    _require(label, value, "a number in [0, 1)", lambda number: 0.0 <= number < 1.0)


def decay_rates(betas: Any) -> None:
    """Refuse what is not a pair of decay rates in [0, 1), both floats or both 1-element tensors.

    Raises:
        ValueError: a rate out of range, one tensor and one number, or a tensor of several elements.
        TypeError: not a pair of numbers.
    """
    betas = pair(betas)
    if not isinstance(betas, tuple) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{i}] must be 1-element, got shape {tuple(beta.shape)}")
        fraction(f"beta parameter at index {i}", beta)
    if not (all(isinstance(b, float) for b in betas) or all(isinstance(b, Tensor) for b in betas)):
        kinds = ", ".join(type(beta).__name__ for beta in betas)
        raise ValueError(f"betas must be either both floats or both Tensors, got {betas!r} ({kinds})")


def not_nan(label: str, value: Any) -> None:
    """Refuse NaN, the number that passes every ``value < 0``.

    Args:
        label: what the message calls it.
        value: the option.

    Raises:
        ValueError: ``value`` is NaN.
    """
    if isinstance(value, float) and value != value:
        raise ValueError(f"Invalid {label}: {value} (expected a number)")


def refuse_odd_option(owner: str, name: str, value: Any, default: Any) -> None:
    """Refuse what cannot take the place of the number, or numbers, that an option is by default.

    Raises:
        TypeError: no number where the default is one.
        ValueError: another number of numbers than the default has.
    """
    if isinstance(default, tuple | list):
        if not isinstance(value, tuple | list | Tensor) or (isinstance(value, Tensor) and not value.dim()):
            raise TypeError(f"{owner}: {name} is {value!r}, expected {len(default)} numbers")
        if len(value) != len(default):
            raise ValueError(f"{owner}: {name} is {value!r}, expected {len(default)} numbers")
        return
    if not isinstance(default, float | int | Tensor):
        return
    # Not all the rest: a user's own coefficients may take a function, say.
    is_odd = value is None or isinstance(value, _NO_NUMBERS)
    has_many = isinstance(value, Tensor) and value.numel() != 1
    if has_many or (is_odd and not isinstance(default, bool)):
        raise TypeError(f"{owner}: {name} is {value!r}, expected a number")


def refuse_odd_groups(groups: Sequence[Any], needed: Callable[[dict[str, Any]], Iterable[str]]) -> None:
    """Say what is wrong with parameter groups that somebody has edited; make ``"params"`` a list again.

    Raises:
        TypeError: a group that is no dictionary, ``"params"`` that are no list, or not of tensors.
        KeyError: ``"params"`` or one of the options that the group needs is missing.
    """
    for i, group in enumerate(groups):
        if not isinstance(group, dict):
            raise TypeError(f"parameter group {i} must be a dictionary, got {type(group).__name__}")
        missing = [name for name in ("params", *needed(group)) if name not in group]
        if missing:
            raise KeyError(
                f"parameter group {i} has no {missing[0]!r}: was it edited? add_param_group adds all"
            )
        params = group["params"]
        if isinstance(params, Tensor | str) or not isinstance(params, Iterable):
            raise TypeError(f"'params' of group {i} must be a list of tensors, got {type(params).__name__}")
        if not isinstance(params, list):
            params = group["params"] = list(params)
        for position, param in enumerate(params):
            if not isinstance(param, Tensor):
                kind = type(param).__name__
                raise TypeError(f"parameter {position} of group {i} must be a tensor, got {kind}: {param!r}")


def _require(label: str, value: Any, expected: str, holds: Callable[[Any], Any]) -> None:
    try:
        fine = bool(holds(value))
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"Invalid {label}: {value!r} (expected {expected})") from error
    if not fine:
        raise ValueError(f"Invalid {label}: {value} (expected {expected})")
