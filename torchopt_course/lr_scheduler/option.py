"""Any option in the place of the learning rate, so that any scheduler can drive it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from torch.optim import Optimizer


def as_lr(optimizer: Optimizer, option: str, index: int | None = None) -> Optimizer:
    """The optimizer as schedulers of the learning rate see it, with another option in the place of that::

        optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        schedulers = [
            CosineAnnealingLR(optimizer, T_max=1000),
            LinearLR(as_lr(optimizer, "weight_decay"), 1.0, 0.1, total_iters=1000),
            LambdaLR(as_lr(optimizer, "betas", 1), lambda step: 1 - 1 / (step + 100)),
        ]

    Every scheduler of torch's and ours takes it, multiplies or replaces the option as it would the rate, and
    saves and loads its state as ever. The values are in the optimizer's groups and its checkpoints, where
    ``initial_lr`` is called ``initial_weight_decay``, and so on. ``CyclicLR`` and ``OneCycleLR`` need
    ``cycle_momentum=False``: two schedules would drive the momentum. Schedulers that refer to one another
    (``SequentialLR``, ``ChainedScheduler``) must be given one and the same result of this function.

    Args:
        optimizer: any of ``torch.optim``'s kind. Groups that are added to it later count too.
        option: a number in each of its groups, transforms' options too.
        index: which number, of an option that is several, as ``betas``.

    Returns:
        What schedulers take for an optimizer; it cannot be stepped.

    Raises:
        TypeError: ``optimizer`` is none, or the option is no number.
        KeyError: a group has no such option.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    view = _Scheduled(optimizer, option, index)
    for i, group in enumerate(optimizer.param_groups):
        if option not in group:
            known = ", ".join(name for name in group if name not in ("params", "param_names"))
            raise KeyError(f"parameter group {i} has no option {option!r}, only {known}")
        value = view.param_groups[i]["lr"]
        if isinstance(value, bool | str | tuple | list) or value is None:
            hint = ": give the index of one" if isinstance(value, tuple | list) else ""
            raise TypeError(f"option {option!r} of parameter group {i} is {value!r}, expected a number{hint}")
    return view


class _Scheduled(Optimizer):
    """What a scheduler takes for its optimizer."""

    _opt_called = True  # torch warns where the optimizer has not been stepped yet: ours is another

    def __init__(self, optimizer: Optimizer, option: str, index: int | None) -> None:
        # Not super(): it has no groups of its own.
        self._optimizer, self._option, self._index = optimizer, option, index
        # A schedule of one option does not cycle the momentum besides: one that would is refused.
        self.defaults = {k: v for k, v in optimizer.defaults.items() if k not in ("momentum", "betas")}
        self.state = optimizer.state

    def __getstate__(self) -> dict[str, Any]:  # to be copied: Optimizer's has no attributes of subclasses
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    @property
    def param_groups(self) -> list[Any]:  # type: ignore[override]
        return [_Group(group, self._option, self._index) for group in self._optimizer.param_groups]

    def step(self, closure: Any = None) -> NoReturn:
        raise RuntimeError(f"this is for schedulers of {self._option!r}: step the optimizer itself")

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]


class _Group(MutableMapping[str, Any]):
    """A parameter group in which ``lr`` is another option, and ``initial_lr`` what belongs to that."""

    def __init__(self, group: dict[str, Any], option: str, index: int | None) -> None:
        self._group, self._option, self._index = group, option, index

    def _name(self, name: str) -> str:
        own = self._option if self._index is None else f"{self._option}_{self._index}"
        return f"{name.removesuffix('lr')}{own}" if name.endswith("_lr") else name

    def __getitem__(self, name: str) -> Any:
        if name != "lr":
            return self._group[self._name(name)]
        value = self._group[self._option]
        return value if self._index is None else value[self._index]

    def __setitem__(self, name: str, value: Any) -> None:
        if name != "lr":
            self._group[self._name(name)] = value
        elif self._index is None:
            self._group[self._option] = value
        else:
            several = list(self._group[self._option])
            several[self._index] = value
            self._group[self._option] = type(self._group[self._option])(several)

    def __delitem__(self, name: str) -> None:
        del self._group[self._option if name == "lr" else self._name(name)]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._group), "lr": None})

    def __len__(self) -> int:
        return len({*self._group, "lr"})
