"""What is stored in 16 bits and computed in 32: which dtype, how it is rounded, where random bits come from.

A *wide* step reads all tensors as float32 (float64 where one of them is that), applies the rule, and rounds
each result once, to the dtype in which it is kept. Three ways of rounding:

- ``nearest``: to even. A change of less than half of the last place is lost, in each step anew;
- ``stochastic``: up or down by chance, so that the mean is right. Chance is a function of seed, step,
  parameter and element, the same on each engine and for any number of threads. Beyond the format's largest
  number: to nearest;
- ``kahan``: to nearest, and what is lost is kept in a tensor of 16 bits beside it, and added when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .eight_bits import EIGHT_BITS, LEAST_ELEMENTS, coded_keys, decode, encode, keys_of
from .layout import in_layout_of, is_dense, same_layout
from .rule.program import Program

HALVES = frozenset({torch.bfloat16, torch.float16})
ROUNDINGS = ("nearest", "stochastic", "kahan")

# Where a parameter stands that is stepped alone: its group's index, its position. Never in a user's group.
PLACE = "rounding_place"

# The options by which it is asked for, and the count of steps that chance depends on.
OPTIONS = ("state_dtype", "rounding", "rounding_seed", "rounding_step")


def computed_in(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The precision of a wide step over tensors of some dtypes."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def reads_back(program: Program, stored: Sequence[torch.dtype], rounding: str | None) -> bool:
    """Whether what a rule does with the new parameter is done with the number that is kept of it.

    In 16 bits torch's own operations round the sum before anything else is done with it, and what a rule
    computes of it, what rounding has lost say, relies on that. So it is in a wide step that rounds to the
    nearest; the other ways of rounding see to what is lost themselves.

    Args:
        program: an update.
        stored: the dtypes of all tensors.
    """
    if rounding is None:
        is_half = set(stored) in ({torch.bfloat16}, {torch.float16})
    else:
        is_half = rounding == "nearest" and stored[0] in HALVES
    return is_half and any(program.results[0] in line.operands for line in program.lines)


def wanted_storage(group: Mapping[str, Any], name: str) -> torch.dtype | str | None:
    """What a group's options want for a state: a dtype, or 8 bits; ``None``: whatever it has."""
    wanted = group.get("state_dtype")
    return wanted.get(name) if isinstance(wanted, Mapping) else wanted


def wanted_dtype(group: Mapping[str, Any], name: str) -> torch.dtype | None:
    """The dtype of a state where it is not of 8 bits."""
    wanted = wanted_storage(group, name)
    return wanted if isinstance(wanted, torch.dtype | None) else torch.float32


def as_wanted(
    name: str, param: Tensor, own: Mapping[str, Any], group: Mapping[str, Any]
) -> dict[str, Tensor]:
    """A state as its group's options want it, with what it is kept under; the same tensors if they are so."""
    keys = keys_of(own, name)
    is_coded = len(keys) == 2
    is_large = param.layout == torch.strided and param.numel() >= LEAST_ELEMENTS
    if wanted_storage(group, name) == EIGHT_BITS and is_large:
        if is_coded and (same_layout(param, own[keys[0]]) or not is_dense(param)):
            return {key: own[key] for key in keys}
        numbers = in_layout_of(param, decode(*(own[key] for key in keys)) if is_coded else own[name].float())
        numbers = numbers if is_dense(numbers) else numbers.contiguous()
        return dict(zip(coded_keys(name), encode(numbers), strict=True))
    state = decode(*(own[key] for key in keys)) if is_coded else own[name]
    wanted = wanted_dtype(group, name) or (param.dtype if is_coded else state.dtype)
    return {name: state if state.dtype == wanted else state.to(wanted)}


def rounding_of(group: Mapping[str, Any]) -> str | None:
    """How a group's results are rounded; ``None`` if it has not asked for a wide step."""
    rounding: str | None = group.get("rounding")
    return rounding or (None if group.get("state_dtype") is None else "nearest")


def compensated(rounding: str | None, dtypes: Mapping[str, torch.dtype]) -> tuple[str, ...]:
    """Of the parameter (``"p"``) and its states those whose rounding errors are kept, in order."""
    return tuple(name for name, dtype in dtypes.items() if rounding == "kahan" and dtype in HALVES)


def compensation(name: str) -> str:
    """What the state with the rounding errors of the parameter (``"p"``) or of a state is called."""
    return "compensation" if name == "p" else f"{name}_compensation"


def compensations(
    rounding: str | None, param: Tensor, names: Sequence[str], own: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors whose rounding errors are kept, by the name of the state that keeps them.

    Args:
        names, own: the states that the rule reads and writes, and the tensors.
    """
    tensors = {"p": param, **{name: own[keys_of(own, name)[0]] for name in names}}
    kept = compensated(rounding, {name: tensor.dtype for name, tensor in tensors.items()})
    return {compensation(name): tensors[name] for name in kept}


def as_read(own: Mapping[str, Any], name: str) -> Tensor | None:
    """A state as the rule sees it: its codes read, with what rounding has kept; ``None`` if there is none."""
    keys = keys_of(own, name)
    if not keys:
        return None
    state: Tensor = decode(*(own[key] for key in keys)) if len(keys) == 2 else own[name]
    lost = own.get(compensation(name))
    return state if lost is None else state.to(torch.float32) + lost


class Chance(NamedTuple):
    """What the random bits of a step are a function of, besides parameter and element.

    Attributes:
        seed: the group's ``rounding_seed``.
        step: how many steps the group has taken.
        group: its index.
        first: the position of the group's first parameter, where that is not 0.
    """

    seed: int
    step: int
    group: int
    first: int = 0

    @classmethod
    def of(cls, group: Mapping[str, Any], index: int) -> Chance:
        """That of a parameter group's next step.

        Raises:
            TypeError: somebody has written something else than a whole number into the group.
        """
        found = {name: group.get(name, 0) for name in ("rounding_seed", "rounding_step")}
        for name, value in found.items():
            if type(value) is not int:
                raise TypeError(f"{name} of parameter group {index} is {value!r}, expected a whole number")
        return cls(*found.values(), *group.get(PLACE, (index, 0)))

    def keys(self, positions: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Two numbers of 32 bits for each parameter, by its position in the group."""
        words = _mixed(np.array(positions, dtype=np.uint64) + np.uint64(self.first))
        for number in (self.group, self.step, self.seed):
            words = _mixed(words + np.uint64(number % 2**64))
        halves = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=1)
        return halves.astype(np.int64)


def _mixed(words: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """SplitMix64 (Steele, Lea, Flood, 2014): every bit depends on every bit."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[Any, np.dtype[np.uint64]] = words ^ (words >> np.uint64(31))
    return mixed


# The hash of an element, 32 bits, of which each rounding uses 16: mix(index ^ first key), in the middle of
# which the second key is added. The multipliers are those of lowbias32 (Wellons, Hash Prospector, 2018).
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B
SHIFTS = (16, 15, 16)
# A word for the next two tensors is mixed from the last one, plus this.
NEXT = 0x9E3779B9

# Beyond a format's largest number there is no next one to be on the way to. What `nearest` keeps must not
# become infinite by chance, so its way is taken there: half of a place in the place of random bits. These are
# float32's bits of the largest numbers.
LARGEST_BFLOAT16, LARGEST_FLOAT16 = 0x7F7F0000, 0x477FE000
HALF_OF_A_PLACE = 0x8000
