"""Several optimizers as one: each parameter goes to the first whose predicate holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from .engines.rule.messages import kind, say_where
from .engines.step import Stepper
from .optimizer import Params, RuleOptimizer, Transforms
from .stepped import SteppedOptimizer
from .validation.options import refuse_odd_groups

# From the name of a parameter (None if it has none) and the parameter itself.
Predicate: TypeAlias = Callable[[Any, Tensor], bool]


class Route(NamedTuple):
    """Which parameters are optimized by which class, with which options; ``None``: all that are left."""

    predicate: Predicate | None
    optimizer: type[RuleOptimizer]
    options: Mapping[str, Any] = {}


class Mixed(SteppedOptimizer):
    """One optimizer for parameters that need different ones: one ``step()``, one checkpoint::

        optimizer = Mixed(
            model.named_parameters(),
            [
                (lambda name, p: p.ndim == 2 and "embed" not in name, Muon, {"lr": 0.02}),
                (None, AdamW, {"lr": 3e-4}),
            ],
        )

    Each parameter goes to the first route whose predicate holds. Each route makes a group of its own out of
    every group that it is given, with its class's options and the class's name as ``"optimizer"``;
    schedulers, hooks, ``GradScaler`` and checkpoints see an ordinary optimizer with these groups. A step is
    made for all parameters or, if one of them cannot be stepped, for none.

    Args:
        params: parameters, named parameters or dictionaries of a parameter group, as in ``torch.optim``.
            Options in such a dictionary take precedence over those of the routes.
        routes: for each, ``(predicate, class)`` or ``(predicate, class, options)``. The predicate gets the
            name of a parameter (``None`` if it was given without) and the parameter; ``None`` in its place,
            in the last route, takes all that are left. The class is one made of
            :class:`~torchopt_course.ElementwiseOptimizer` or :class:`~torchopt_course.TensorOptimizer`.

    Raises:
        TypeError: a route that is none, a class without a rule or with a ``step`` of its own.
        ValueError: a parameter that no route takes, a route behind one that takes all, two classes of one
            name; whatever the classes refuse.
    """

    def __init__(self, params: Params, routes: Iterable[Sequence[Any]]) -> None:
        self._routes = _checked(routes)
        self._parts: dict[str, RuleOptimizer] = {}
        self._forget_plans()
        Optimizer.__init__(self, params, {})
        # Schedulers ask these what all groups have.
        several = [part.defaults for part in self._parts.values()]
        self.defaults.update({n: v for n, v in several[0].items() if all(n in each for each in several)})

    def _forget_plans(self) -> None:
        self._stepper = Stepper()
        for part in self._parts.values():
            part._forget_plans()
            self._skips_nonfinite |= part._skips_nonfinite

    # -- torch.optim.Optimizer -------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters: a group for each of the routes that they take.

        Raises:
            KeyError: no ``"params"``.
            ValueError: a parameter that no route takes, or that is in a group already.
        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise KeyError(f"a parameter group needs 'params', got {kind(param_group)}")
        params = param_group["params"]
        members: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        by_route: dict[int, list[Any]] = {}
        taken: dict[int, int] = {}
        for position, member in enumerate(members):
            k = self._route_of(position, member)
            param = member[1] if isinstance(member, tuple) else member
            if (other := taken.setdefault(id(param), k)) != k:
                both = " and ".join(self._routes[each].optimizer.__name__ for each in (other, k))
                raise ValueError(f"parameter {position} stands there twice, and takes two routes: {both}")
            by_route.setdefault(k, []).append(member)
        self._refuse_known(members)
        # Each class checks its own, before anything is added.
        made = [
            self._routes[k].optimizer([{**param_group, "params": mine}], **self._routes[k].options)
            for k, mine in sorted(by_route.items())
        ]
        for optimizer in made:
            name = type(optimizer).__name__
            known = self._parts.get(name, optimizer)
            if [*map(type, known.transforms)] != [*map(type, optimizer.transforms)]:
                raise ValueError(
                    f"routes to {name} differ in their transforms ({known._names_of_transforms or 'none'}; "
                    f"{optimizer._names_of_transforms or 'none'}): make a subclass with another name for one"
                )
            for group in optimizer.param_groups:
                group["optimizer"] = name
            self.param_groups += optimizer.param_groups
            self.state.update(optimizer.state)
            self._parts.setdefault(name, optimizer)
            self._skips_nonfinite |= optimizer._skips_nonfinite

    def _route_of(self, position: int, member: Any) -> int:
        name, param = member if isinstance(member, tuple) else (None, member)
        called = f"parameter {position}" + (f" ({name})" if name is not None else "")
        if not isinstance(param, Tensor):
            raise TypeError(f"{called} must be a tensor, got {kind(param)}")
        for k, route in enumerate(self._routes):
            try:
                if route.predicate is None or route.predicate(name, param):
                    return k
            except Exception as error:
                hint = "" if name is not None else ", which has no name: give model.named_parameters()"
                say_where(error, f"the predicate of {route.optimizer.__name__}, for {called}{hint}")
                raise
        raise ValueError(
            f"{called} of shape {tuple(param.shape)} takes none of the routes: add (None, optimizer, options)"
        )

    def _refuse_known(self, members: Sequence[Any]) -> None:
        known = {id(param) for group in self.param_groups for param in group["params"]}
        named = [isinstance(member, tuple) for member in members]
        if any(
            id(member[1] if is_named else member) in known
            for member, is_named in zip(members, named, strict=True)
        ):
            raise ValueError("some parameters appear in more than one parameter group")
        if self.param_groups and named and ("param_names" in self.param_groups[0]) != all(named):
            raise ValueError("all parameter groups must be with names, or all without")

    @staticmethod
    def _look_at(optimizer: SteppedOptimizer, state_dict: dict[str, Any]) -> None:
        groups = state_dict.get("param_groups")
        for i, mine in enumerate(optimizer.param_groups):
            if isinstance(groups, list | tuple) and i < len(groups) and isinstance(groups[i], Mapping):
                found = groups[i].get("optimizer")
                if found != mine["optimizer"]:
                    raise ValueError(
                        f"loaded parameter group {i} is one of {kind(found) if found is None else found}, "
                        f"expected {mine['optimizer']}: it is the state_dict of other routes"
                    )
        SteppedOptimizer._look_at(optimizer, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        parts = {name: (part.defaults, part.transforms) for name, part in self._parts.items()}
        return {**super().__getstate__(), "_routes": self._routes, "_given_to_parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        parts = state.pop("_given_to_parts", None)
        Optimizer.__setstate__(self, state)
        if parts is not None:  # a copy
            classes = {route.optimizer.__name__: route.optimizer for route in self._routes}
            self._parts = {name: _part(classes[name], *given) for name, given in parts.items()}
        self._forget_plans()
        self._mend_groups()

    # -- what a step asks ------------------------------------------------------------------------------

    def _part(self, i: int) -> RuleOptimizer:
        part = self._parts[self.param_groups[i]["optimizer"]]
        part.param_groups, part.state = self.param_groups, self.state  # whatever has become of them
        return part

    def _renew_formula(self) -> bool:
        changed = [part._renew_formula() for part in self._parts.values()]
        return any(changed)

    def _refuse_odd_edits(self) -> None:
        def needed(group: dict[str, Any]) -> Iterable[str]:
            part = self._parts.get(group.get("optimizer", ""))
            return ("optimizer", *(part._needed_options if part else ()))

        refuse_odd_groups(self.param_groups, needed)
        for i, group in enumerate(self.param_groups):
            if group["optimizer"] not in self._parts:
                known = ", ".join(self._parts)
                raise ValueError(f"group {i} says {group['optimizer']!r} for its optimizer, expected {known}")
        if not isinstance(self.state, Mapping):
            raise TypeError(f"the optimizer's state must be a dictionary, got {kind(self.state)}")


def _part(cls: type[RuleOptimizer], defaults: dict[str, Any], transforms: Transforms) -> RuleOptimizer:
    """An optimizer without groups of its own, as unpickling makes it."""
    part = cls.__new__(cls)
    empty = {"defaults": defaults, "transforms": transforms, "state": defaultdict(dict), "param_groups": []}
    Optimizer.__setstate__(part, empty)
    return part


def _checked(routes: Iterable[Sequence[Any]]) -> tuple[Route, ...]:
    known: dict[str, type] = {}
    checked: list[Route] = []
    for k, given in enumerate(routes):
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise TypeError(f"route {k} is {kind(given)}, expected (predicate, optimizer, options)")
        route = Route(*given)
        cls = route.optimizer
        if route.predicate is not None and not callable(route.predicate):
            raise TypeError(
                f"route {k} has {kind(route.predicate)} for its predicate, expected a function or None"
            )
        if not isinstance(cls, type) or not issubclass(cls, RuleOptimizer):
            raise TypeError(
                f"route {k} has {kind(cls)}, expected a class made of ElementwiseOptimizer or TensorOptimizer"
            )
        if cls.step is not SteppedOptimizer.step:
            raise TypeError(f"route {k}: {cls.__name__} has a step() of its own, which would not be called")
        if known.setdefault(cls.__name__, cls) is not cls:
            raise ValueError(
                f"route {k} has another class of the name {cls.__name__}: checkpoints know it by that"
            )
        if checked and checked[-1].predicate is None:
            raise ValueError(
                f"route {k} ({cls.__name__}) gets nothing: the one before takes all that are left"
            )
        checked.append(route)
    if not checked:
        raise ValueError("no routes: expected (predicate, optimizer, options) for each optimizer")
    return tuple(checked)
