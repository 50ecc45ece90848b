"""Refuse ``state_dtype`` and ``rounding`` that cannot be meant, and checkpoints of other precision."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..engines.eight_bits import CODE, EIGHT_BITS, blocks_of, coded_keys
from ..engines.layout import is_dense, is_sparse
from ..engines.local import is_distributed
from ..engines.storage import HALVES, ROUNDINGS, compensation, rounding_of, wanted_storage

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Stored(Protocol):
    """What counts here of an optimizer."""

    states: tuple[str, ...]
    optional_states: Mapping[str, str]
    _STORAGE_OPTIONS: ClassVar[tuple[str, ...]]

    def _kept_states(self, group: Mapping[str, Any]) -> tuple[str, ...]: ...


def refuse_odd_storage(owner: str, states: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse options that say how numbers are stored, as far as that can be seen without the parameters.

    Args:
        owner, states: the optimizer and all states that it may keep.

    Raises:
        TypeError: no dtype; a seed that is no whole number.
        ValueError: a dtype that numbers cannot be kept in, a state or a way of rounding that does not exist.
        RuntimeError: options that exclude one another.
    """
    wanted = options.get("state_dtype")
    if wanted is not None and not states:
        raise ValueError(f"state_dtype={wanted} is given, but {owner} keeps no states")
    for name, dtype in wanted.items() if isinstance(wanted, Mapping) else {"": wanted}.items():
        if isinstance(wanted, Mapping) and name not in states:
            known = ", ".join(map(repr, states))
            raise ValueError(f"state_dtype has a dtype for {name!r}, but the states of {owner} are {known}")
        label = f"state_dtype[{name!r}]" if name else "state_dtype"
        if (dtype is None and not name) or (isinstance(dtype, str) and dtype == EIGHT_BITS):
            continue
        known = ", ".join((*map(str, DTYPES), repr(EIGHT_BITS)))
        expected = f"one of {known}" + ("" if name else ", or a dictionary of them")
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{label} is {dtype!r}, expected {expected}")
        if dtype not in DTYPES:
            raise ValueError(f"{label} is {dtype}, expected {expected}")
    rounding = options.get("rounding")
    if rounding is not None and rounding not in ROUNDINGS:
        raise ValueError(f"rounding is {rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    seed = options.get("rounding_seed", 0)
    if type(seed) is not int:
        raise TypeError(f"rounding_seed is {seed!r}, expected a whole number")
    if "rounding_seed" in options and rounding != "stochastic":
        raise ValueError(f"rounding_seed={seed} is given, but rounding={rounding!r} draws no random bits")
    _refuse_contradictions(owner, states, rounding, options)


def _refuse_contradictions(
    owner: str, states: Sequence[str], rounding: str | None, options: Mapping[str, Any]
) -> None:
    if rounding in ("stochastic", "kahan") and options.get("differentiable"):
        raise RuntimeError(f"rounding={rounding!r} has no derivative, and `differentiable` asks for one")
    if rounding == "stochastic" and options.get("capturable"):
        raise RuntimeError(
            "rounding='stochastic' draws other bits in each step, and a captured one (`capturable`) "
            "would repeat its own"
        )
    in_8_bits = [name for name in states if wanted_storage(options, name) == EIGHT_BITS]
    if in_8_bits and options.get("differentiable"):
        raise RuntimeError("state_dtype='8bit' has no derivative, and `differentiable` asks for one")
    kept = {key: "state_dtype='8bit'" for name in in_8_bits for key in coded_keys(name)}
    if rounding == "kahan":
        kept |= dict.fromkeys(map(compensation, ("p", *states)), "rounding='kahan'")
    for name, asked in kept.items():
        if name in states:
            raise ValueError(f"{asked} keeps a state {name!r}, but {owner} has one of that name")


def refuse_idle_storage(owner: str, group: Mapping[str, Any], states: Sequence[str]) -> None:
    """Refuse a group whose options ask for what its parameters cannot have.

    Args:
        states: those that the group keeps.

    Raises:
        ValueError: rounding without a tensor of 16 bits; complex or sparse parameters.
    """
    if rounding_of(group) is None:
        return
    rounding, wanted = group.get("rounding"), group.get("state_dtype")
    params = group["params"]
    for param in params:
        if param.is_complex() and wanted is not None:
            raise ValueError(f"state_dtype={wanted} is given, but a parameter is of dtype {param.dtype}")
        if is_distributed({type(param)}) and any(
            wanted_storage(group, each) == EIGHT_BITS for each in states
        ):
            raise ValueError(
                "state_dtype='8bit' is given, but a parameter is a DTensor, whose shards would cut blocks "
                "that have a scale: give torch.bfloat16"
            )
        if is_sparse(param) and rounding in ("stochastic", "kahan"):
            raise ValueError(f"rounding={rounding!r} is given, but a parameter has the layout {param.layout}")
    kinds = {param.dtype for param in params}
    kinds_of_states = {wanted_storage(group, name) or kind for name in states for kind in kinds}
    rounded = {*HALVES, EIGHT_BITS} if rounding == "stochastic" else HALVES
    if rounding in ("stochastic", "kahan") and params and rounded.isdisjoint(kinds | kinds_of_states):
        raise ValueError(
            f"rounding={rounding!r} is given, but no tensor of {owner} has 16 bits: the parameters are "
            f"{_said(kinds)}, the states {_said(kinds_of_states)}; give state_dtype=torch.bfloat16 for states"
        )


def warn_of_lost_squares(
    owner: str, group: Mapping[str, Any], states: Sequence[str], squares: Collection[str]
) -> None:
    """Warn of a group that asks for ways of storing, if squares of gradients will vanish in its float16.

    Args:
        states: those that the group keeps.
        squares: those that hold squares of gradients.
    """
    kinds = {param.dtype for param in group["params"]}
    for name in states:
        wanted = wanted_storage(group, name)
        if name in squares and torch.float16 in ({wanted} if wanted else kinds):
            warnings.warn(
                f"{owner} will keep {name!r} in torch.float16, which has no number between 0 and 6e-8, and "
                "that state holds squares of gradients: small ones become 0, and steps too long, or of any "
                "length. torch.bfloat16 takes no more memory and reaches as far as float32: give "
                f"state_dtype={{{name!r}: torch.bfloat16}}",
                UserWarning,
                stacklevel=2,
            )


def _said(kinds: Iterable[object]) -> str:
    return " and ".join(sorted(map(str, kinds))) or "none"


def refuse_other_storage(optimizer: Stored, i: int, group: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose group is stored or rounded otherwise than it was asked to be here, or can be.

    One that says nothing of it, as torch's, is converted to what is asked for here. If nothing is asked for
    here the checkpoint decides, as for any option.

    Args:
        optimizer: the one that shall load.
        i: the group's index.
        group, own: the group in the checkpoint, and in the optimizer.

    Raises:
        ValueError: with both, or with what the parameters here cannot have.
        TypeError, RuntimeError: as :func:`refuse_odd_storage`.
    """
    told = {name: group[name] for name in optimizer._STORAGE_OPTIONS if group.get(name) is not None}
    for name in ("state_dtype", "rounding"):
        theirs, ours = told.get(name), own.get(name)
        if theirs is not None and ours is not None and theirs != ours:
            raise ValueError(
                f"loaded parameter group {i} has {name}={theirs}, the optimizer {name}={ours}: give "
                f"the same, or delete {name!r} from the loaded group to convert its states"
            )
    if not told:
        return
    owner, together = type(optimizer).__name__, {**own, **told}
    try:
        refuse_odd_storage(owner, (*optimizer.states, *optimizer.optional_states), together)
        refuse_idle_storage(owner, together, optimizer._kept_states(own))
    except (TypeError, ValueError, RuntimeError) as error:
        raise type(error)(f"loaded parameter group {i}: {error}") from error


def odd_code(name: str, own: Mapping[str, Any], param: Tensor) -> str | None:
    """What is wrong with the codes and scales of a state; ``None`` if nothing is, or there are none."""
    codes, scales = (own.get(key) for key in coded_keys(name))
    if codes is None and scales is None:
        return None
    for key, tensor, shape, dtype in (
        (coded_keys(name)[0], codes, param.shape, CODE),
        (coded_keys(name)[1], scales, (blocks_of(param.numel()),), torch.float32),
    ):
        if not isinstance(tensor, Tensor):
            return f"{key!r} is {type(tensor).__name__}, expected a tensor of {dtype}"
        if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            return f"{key!r} is {found}, expected {dtype} of shape {tuple(shape)}"
        if not is_dense(tensor):
            return f"{key!r} has gaps in memory, whose order tells the blocks: clone() it"
    return None
