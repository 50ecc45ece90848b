"""Refuse a checkpoint that is not this optimizer's, before anything is changed, and name the difference."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..engines.eight_bits import coded_keys, keys_of
from .storage import Stored, odd_code, refuse_other_storage

# What schedulers write into parameter groups; not options of any optimizer.
_FROM_SCHEDULERS = frozenset({"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"})
_ALWAYS_THERE = frozenset({"params", "param_names"})


class Declared(Stored, Protocol):
    """What a checkpoint is held against: what counts here of a class with a rule."""

    param_groups: list[dict[str, Any]]
    state: Any
    defaults: dict[str, Any]
    _options: tuple[str, ...]
    _options_of_transforms: Collection[str]
    _FIXED_OPTIONS: ClassVar[Mapping[str, Any]]
    _counts_steps: bool

    def _default_of(self, option: str) -> Any: ...
    def _refuse_other_transforms(self, i: int, group: Mapping[str, Any]) -> None: ...
    def _where(self, i: int, position: int) -> str: ...
    def _model_of_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None: ...


class Optimizer(Protocol):
    """An optimizer of which a class declares each group."""

    param_groups: list[dict[str, Any]]

    def _part(self, i: int) -> Declared: ...


def refuse_foreign(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Refuse a state_dict that ``optimizer`` could not go on with. It changes neither of the two.

    Missing options that are off by default and missing optional states begin anew, for older versions did
    not have them; a parameter without any state had no gradient yet. States and options of other names are
    welcome as long as the formula's own are all there: wrappers such as SAM or Lookahead keep some of theirs.

    Args:
        optimizer: the one that shall load.
        state_dict: as from ``state_dict()``, after all of the user's pre-hooks. Its parameters may have any
            ids, its tensors any dtype and device; the shape of a ``DTensor`` is its global one.

    Raises:
        TypeError: not a state_dict, or a part of one is of the wrong kind.
        KeyError: ``"state"``, ``"param_groups"``, a group's ``"params"``, a required state or an option that
            is not off by default is missing.
        ValueError: another number or size of groups, another shape, the checkpoint of another optimizer,
            a state whose parameter is in no group, states of other precision than is asked for here.
    """
    state, groups = _parts(state_dict)
    _refuse_other_groups(optimizer, groups)
    for i, (group, own) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
        refuse_other_storage(optimizer._part(i), i, group, own)
        optimizer._part(i)._refuse_other_transforms(i, group)
    owners: dict[Any, tuple[int, int]] = {
        key: (i, position) for i, group in enumerate(groups) for position, key in enumerate(group["params"])
    }
    entries = {key: entry for key, entry in state.items() if key in owners and entry is not None}
    indices: dict[int, list[int]] = {}
    for i in range(len(groups)):
        indices.setdefault(id(optimizer._part(i)), []).append(i)
    for several in indices.values():
        mine = {i: groups[i] for i in several}
        theirs = {key: entry for key, entry in entries.items() if owners[key][0] in mine}
        _refuse_foreign_part(optimizer._part(several[0]), mine, theirs, owners)
    orphans = [key for key in state if isinstance(key, int) and key not in owners]
    if orphans:
        raise ValueError(f"loaded state dict has a state for parameter {orphans[0]}, which is in no group")


def _refuse_foreign_part(
    optimizer: Declared,
    groups: Mapping[int, Mapping[str, Any]],
    entries: Mapping[Any, Any],
    owners: Mapping[Any, tuple[int, int]],
) -> None:
    """Refuse groups, by index, and states of their parameters that ``optimizer`` could not go on with."""
    for key, entry in entries.items():
        if not isinstance(entry, Mapping):
            where = optimizer._where(*owners[key])
            raise TypeError(f"the loaded state of {where} must be a dictionary, got {type(entry).__name__}")

    counter = ["step"] if optimizer._counts_steps else []
    names = (*optimizer.states, *optimizer.optional_states)
    ours = {*names, *(key for name in names for key in coded_keys(name)), *counter}
    required = (*optimizer.states, *counter)
    own = [entry for entry in optimizer.state.values() if isinstance(entry, Mapping)]
    known = ours.union(*own)
    lacking = {key: _missing(optimizer, required, entry, *owners[key]) for key, entry in entries.items()}
    complete = any(entry and not lacking[key] for key, entry in entries.items())
    unknown = list(dict.fromkeys(name for entry in entries.values() for name in entry if name not in known))
    _refuse_other_optimizers(optimizer, groups, unknown, proven=complete and bool(optimizer.states))

    for key, entry in entries.items():
        i, position = owners[key]
        where = optimizer._where(i, position)
        missing = lacking[key]
        extras_only = ours.isdisjoint(entry) and (complete or known.issuperset(entry))
        if missing and entry and not extras_only:
            raise KeyError(
                f"the loaded state of {where} has no {_quote(missing)}, only {_quote(entry)}: "
                f"{type(optimizer).__name__} needs {_quote(required)}"
            )
        _refuse_misfits(optimizer, i, position, entry)
    elsewhere = {*optimizer._options_of_transforms, *optimizer._FIXED_OPTIONS}
    options = [name for name in optimizer._options if name not in elsewhere]
    for i, group in groups.items():
        needed = [name for name in options if name not in group and optimizer._default_of(name)]
        if needed:
            raise KeyError(f"loaded parameter group {i} has no {_quote(needed)}, only {_quote(group)}")


def _missing(
    optimizer: Declared, required: Sequence[str], entry: Mapping[str, Any], i: int, position: int
) -> list[str]:
    """The states that an entry must have and has not."""
    group = optimizer.param_groups[i]
    param = group["params"][position]
    return [
        name
        for name in required
        if not keys_of(entry, name)
        and (name == "step" or optimizer._model_of_state(name, param, group) is not None)
    ]


def _parts(state_dict: Mapping[str, Any]) -> tuple[Mapping[Any, Any], Sequence[Mapping[str, Any]]]:
    for name, kind, word in (("state", Mapping, "dictionary"), ("param_groups", list | tuple, "list")):
        if name not in state_dict:
            found = _quote(state_dict) or "nothing"
            raise KeyError(f"not the state_dict of an optimizer: it has no {name!r}, but {found}")
        if not isinstance(state_dict[name], kind):
            raise TypeError(f"{name!r} must be a {word}, got {type(state_dict[name]).__name__}")
    for i, group in enumerate(state_dict["param_groups"]):
        if not isinstance(group, Mapping):
            raise TypeError(f"loaded parameter group {i} must be a dictionary, got {type(group).__name__}")
        if "params" not in group:
            raise KeyError(f"loaded parameter group {i} has no 'params', only {_quote(group)}")
        if not isinstance(group["params"], list | tuple):
            found = type(group["params"]).__name__
            raise TypeError(f"'params' of loaded parameter group {i} must be a list of ids, got {found}")
        for own in group["params"]:
            if not isinstance(own, Hashable):
                raise TypeError(f"loaded parameter group {i} has {own!r} for the id of a parameter")
    return state_dict["state"], state_dict["param_groups"]


def _refuse_other_groups(optimizer: Optimizer, groups: Sequence[Mapping[str, Any]]) -> None:
    own = optimizer.param_groups
    if len(groups) != len(own):
        raise ValueError(
            "loaded state dict has a different number of parameter groups: "
            f"{len(groups)}, expected {len(own)}"
        )
    for i, (group, mine) in enumerate(zip(groups, own, strict=True)):
        got, expected = len(group["params"]), len(mine["params"])
        if got != expected:
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                f"group: group {i} has {got} parameters, expected {expected}" + _other_names(group, mine)
            )
    owners: dict[Any, Tensor] = {}
    for group, mine in zip(groups, own, strict=True):
        for key, param in zip(group["params"], mine["params"], strict=True):
            if owners.setdefault(key, param) is not param:
                raise ValueError(f"loaded state dict contains parameter {key!r} twice in its groups")


def _other_names(group: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    got, expected = group.get("param_names"), mine.get("param_names")
    if not isinstance(got, list | tuple) or not isinstance(expected, list | tuple):
        return ""
    only = {
        "without": [name for name in expected if name not in got],
        "and also": [name for name in got if name not in expected],
    }
    return "".join(f", {word} {_quote(names)}" for word, names in only.items() if names)


def _refuse_misfits(optimizer: Declared, i: int, position: int, entry: Mapping[str, Any]) -> None:
    where, group = optimizer._where(i, position), optimizer.param_groups[i]
    param = group["params"][position]
    for name in sorted({*optimizer.states, *optimizer.optional_states}):
        value = entry.get(name)
        if odd := odd_code(name, entry, param):
            raise ValueError(f"state {name!r} of {where} is kept in 8 bits, and {odd}")
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"state {name!r} of {where} must be a tensor, got {type(value).__name__}")
        model = optimizer._model_of_state(name, param, group)
        if model is None:
            raise ValueError(
                f"state {name!r} of {where} has shape {tuple(value.shape)}, but one of shape "
                f"{tuple(param.shape)} keeps no such state"
            )
        if value.shape != model.shape:
            raise ValueError(
                f"state {name!r} of {where} has shape {tuple(value.shape)}, expected {tuple(model.shape)}"
            )
        if not torch.can_cast(value.dtype, model.dtype):
            raise ValueError(
                f"state {name!r} of {where} has dtype {value.dtype}, which cannot become {model.dtype}"
            )
    step = entry.get("step") if optimizer._counts_steps else None
    if isinstance(step, Tensor):
        if step.numel() != 1:
            raise ValueError(f"step of {where} has shape {tuple(step.shape)}, expected a single number")
    elif step is not None and not isinstance(step, Real):
        raise TypeError(f"step of {where} must be a number or a 1-element tensor, got {step!r}")


def _refuse_other_optimizers(
    optimizer: Declared, groups: Mapping[int, Mapping[str, Any]], unknown: list[str], *, proven: bool
) -> None:
    """Foreign options prove nothing alone, a newer version, a scheduler or a wrapper may have brought them.

    Args:
        unknown: names of states that the optimizer's formula does not have.
        proven: all states that the formula needs were found, by their names.
    """
    owner = type(optimizer).__name__
    for i, group in groups.items():
        mine = optimizer.param_groups[i]
        known = {*optimizer.defaults, *mine, *_FROM_SCHEDULERS, *_ALWAYS_THERE, *optimizer._STORAGE_OPTIONS}
        options = [name for name in group if name not in known]
        missing = [name for name in optimizer._options if name not in group]
        # Relatives such as NAdam have all of Adam's states, but not what switches its optional ones on; those
        # of an optimizer that does not count its steps do count them.
        switches = optimizer.optional_states.values()
        is_relative = "step" in unknown or not all(option in group for option in switches)
        if options and unknown and (is_relative or (missing and not proven)):
            raise ValueError(
                f"this looks like the state_dict of another optimizer: {owner} has neither the states "
                f"{_quote(unknown)} nor the options {_quote(options)} of group {i}"
            )
        if options and missing and not proven:
            raise ValueError(
                f"this looks like the state_dict of another optimizer: group {i} lacks the options "
                f"{_quote(missing)} of {owner} and has {_quote(options)} instead"
            )


def _quote(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
