"""Numbers over several tensors: a rule's ``over="group"`` and ``over="all"``.

They are found before a step is prepared, when nothing has been changed yet: each bucket makes a number of its
tensors, as its engine does (:meth:`.bucket.Bucket.search`), and these are put together here, in the order of
the groups and in double precision. So it does not matter which engines the tensors are for, nor how many
threads there are. What is found is a coefficient to the engines: a number, or a tensor of one element, on a
device if a tensor is on one; the host does not wait for it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .bucket import Coefficients, Part, Scaling, Specialize, Update
from .rule.searches import Wanted

# By the keys of what was wanted: numbers of numpy's, or tensors of one element.
Found = Mapping[str, Any]


class NotFound(Exception):
    """A rule needs a number over several tensors that nobody has looked for."""


class Group(Protocol):
    """What is asked of a group."""

    index: int

    @property
    def ages(self) -> Sequence[Any]: ...
    def how(self, optimizer: Any, known: Found) -> tuple[Coefficients, Specialize]: ...
    def search(
        self, number: int, optimizer: Any, known: Found, scaling: Scaling | None
    ) -> Sequence[Part]: ...


def find(
    groups: Sequence[Group], part: Callable[[int], Any], scaling: Scaling | None
) -> dict[int, dict[str, Any]]:
    """The numbers that the rules of all groups need, for each group by its index.

    Args:
        part: the optimizer that steps the group of an index. Numbers over all tensors are over those groups
            that are stepped by the same one.

    Raises:
        RuntimeError: the options of two groups make their rule ask for different numbers over all.
    """
    known: dict[int, dict[str, Any]] = {group.index: {} for group in groups}
    together: dict[int, list[Group]] = {}
    for group in groups:
        together.setdefault(id(part(group.index)), []).append(group)
    for several in together.values():
        optimizer = part(several[0].index)
        for number in count():
            parts = {
                group.index: group.search(number, optimizer, known[group.index], scaling) for group in several
            }
            every = [each for mine in parts.values() for each in mine]
            if not every:
                break  # no parameter is stepped
            for index, mine in parts.items():
                wanted = max((each.wanted for each in mine or every), key=len)
                for place, one in enumerate(wanted):
                    given = every if one.over == "all" else mine
                    if not given:
                        continue  # none of the group is stepped
                    _refuse_differences(type(optimizer).__name__, wanted, given)
                    known[index][one.key] = _together(one.word, place, given)
            if all(each.is_last for each in every):
                break
    return known


def _refuse_differences(owner: str, wanted: tuple[Wanted, ...], parts: Sequence[Part]) -> None:
    for part in parts:
        if part.wanted != wanted:
            mine, other = (
                ", ".join(f"{one.word}(over={one.over!r})" for one in each) or "nothing"
                for each in (wanted, part.wanted)
            )
            raise RuntimeError(
                f"{owner}.rule asks for {mine} of some parameters and, by their options, for {other} of "
                "others: a number of several tensors must be asked for alike by all of them"
            )


def renewals(
    groups: Sequence[Group],
    part: Callable[[int], Any],
    known: Mapping[int, Found],
    scaling: Scaling | None,
) -> Iterator[Update]:
    """What gives the options that rules renew their new values, once all is known.

    Numbers that depend on the step count take that of the parameter that has taken the most steps.

    Args:
        groups, part: as of :func:`find`.
        known: what it found.
    """
    together: dict[int, list[Group]] = {}
    for group in groups:
        together.setdefault(id(part(group.index)), []).append(group)
    for several in together.values():
        optimizer = part(several[0].index)
        ages = [age for group in several for age in group.ages]
        if not optimizer._parsed_rule.renews or not ages:
            continue
        oldest = max(ages) if not any(isinstance(age, Tensor) for age in ages) else _oldest(ages)
        for group in several:
            coefficients, specialize = group.how(optimizer, known[group.index])
            values = coefficients(oldest)
            specialization = specialize(values)
            if any(one.key not in values for search in specialization.searches for one in search.wanted):
                continue  # numbers of a group of which none is stepped
            options = optimizer.param_groups[group.index]
            assert specialization.renewal is not None, "only what has been read can renew"
            new = specialization.renewal.number_results(values)
            for name, value in zip(optimizer._parsed_rule.renews, new, strict=True):
                yield _renewal(options, name, value, scaling)


def _oldest(ages: Sequence[Any]) -> Tensor:
    """The largest, where some are on a device."""
    home = next(age.device for age in ages if isinstance(age, Tensor))
    return torch.stack([torch.as_tensor(age, dtype=torch.float64, device=home) for age in ages]).amax()


def _renewal(options: dict[str, Any], name: str, value: Any, scaling: Scaling | None) -> Update:
    """What sets an option: to a number if the host knows it, else to a tensor, the same in each step."""
    old = options[name]
    if scaling is not None:  # whether there was an overflow is known on the device alone
        home = scaling.found_inf.device
        was, becomes = (torch.as_tensor(each, dtype=torch.float64, device=home) for each in (old, value))
        value = torch.where(scaling.found_inf != 0, was, becomes)
    if isinstance(value, Tensor):
        value = value.detach()
        value = value.item() if value.is_cpu else value.clone()
    if isinstance(old, Tensor):
        return partial(_fill, old, value)
    return partial(options.__setitem__, name, value)


@torch.no_grad()
def _fill(tensor: Tensor, value: Any) -> None:
    if isinstance(value, Tensor):
        tensor.copy_(value)
    else:
        tensor.fill_(value)


def _together(word: str, place: int, parts: Sequence[Part]) -> Any:
    """One number of those of all parts: one of numpy's, where there is no tensor among them."""
    values = [part.values[place] for part in parts]
    size = sum(part.size for part in parts)
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        with np.errstate(all="ignore"):
            number = _OF_NUMBERS[word](np.array(values))
            return number / np.float64(size) if word == "mean" else number
    home = next((each.device for each in tensors if each.device.type != "cpu"), tensors[0].device)
    every = torch.cat(
        [
            each.to(home, torch.float64, non_blocking=True)
            if isinstance(each, Tensor)
            else torch.full((1,), each, dtype=torch.float64, device=home)
            for each in values
        ]
    )
    return every.sum() / size if word == "mean" else _OF_TENSOR.get(word, torch.sum)(every)


def _sum(values: Any) -> Any:
    """One after the other, as compiled code does it (:mod:`.native.search`)."""
    return np.add.accumulate(values)[-1]


def _length(values: Any) -> Any:
    return np.sqrt(_sum(values * values))


_OF_NUMBERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("sum", "mean", "count_nonzero"), _sum),
    "norm": _length,
    "amax": np.max,
    "amin": np.min,
    "any": np.any,
    "all": np.all,
}
# Those that are no sums.
_OF_TENSOR: Mapping[str, Callable[[Tensor], Tensor]] = {
    "norm": torch.linalg.vector_norm,
    "amax": torch.amax,
    "amin": torch.amin,
    "any": torch.any,
    "all": torch.all,
}
