"""What an optimizer is by its class and its transforms together: rule, coefficients, states."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from .engines.eight_bits import keys_of
from .engines.rule.parsed import Rule
from .stepped import SteppedOptimizer
from .transforms.checks import names_of, refuse_other_transforms
from .transforms.composition import Formula, composed
from .transforms.transform import Transform


class TransformedOptimizer(SteppedOptimizer):
    """An optimizer of a class with a rule, and of transforms, if there are any."""

    # One with transforms has these five for itself, composed of its class's and of theirs.
    states: tuple[str, ...] = ()
    optional_states: Mapping[str, str] = {}
    renews: tuple[str, ...] = ()
    rule: Rule
    coefficients: Callable[..., Mapping[str, Any]]
    # What is done to gradients before the rule and to weights after it.
    transforms: Sequence[Transform] = ()
    _names_of_transforms = ""
    _options_of_transforms: Collection[str] = ()
    # The coefficient by which the rule multiplies the parameter before all else, if it has one.
    shrink: ClassVar[str | None] = None

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        raise NotImplementedError

    def _own_rule(self) -> Rule:
        """The class's rule, as it may be composed with others."""
        return type(self).rule

    def _compose(self) -> None:
        """Take on the rule, coefficients and states that come of the class's and of the transforms."""
        if not self.transforms:
            return
        cls = type(self)
        self._names_of_transforms = names_of(self.transforms)
        self._skips_nonfinite = any(transform.skips_nonfinite for transform in self.transforms)
        self._options_of_transforms = {name for each in self.transforms for name in each.options}
        states, renews = tuple(cls.states), tuple(cls.renews)
        formula = Formula(self._own_rule(), cls.coefficients, states, cls.optional_states, renews)
        if self.__dict__.get("_composed_of") != formula:  # else a rule that has been read is read anew
            self.__dict__["_composed_of"] = formula
            self.__dict__.update(composed(cls.__name__, formula, self.transforms, cls.shrink)._asdict())

    def _begun_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """What ``initial_state`` makes, of the transform whose state it is, or else of the class."""
        for transform in self.transforms:
            if name in transform.states or name in transform.optional_states:
                return transform.initial_state(name, param, group)
        return self.initial_state(name, param, group)

    def _drop_given_up(self, param: Tensor, group: Mapping[str, Any]) -> None:
        """Delete states of transforms that have been switched off: on again, they begin with the weights."""
        own = self.state.get(param, {})
        for transform in self.transforms:
            for name, option in transform.optional_states.items():
                if not group.get(option):
                    for key in keys_of(own, name):
                        del own[key]

    @property
    def _prepares_gradients(self) -> bool:
        return any(transform.prepares_gradients for transform in self.transforms)

    def _prepared_gradients(
        self, group: Mapping[str, Any], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Gradients as the rule and those transforms shall see them that a rule has words for."""
        prepared: list[Tensor | None] = []
        for param, grad in zip(group["params"], grads, strict=True):
            for transform in self.transforms:
                if transform.prepares_gradients and grad is not None:
                    grad = transform.prepared_gradient(param, grad, group)
            prepared.append(grad)
        return prepared

    @property
    def _called(self) -> str:
        """What the optimizer is called in messages about its rule."""
        return type(self).__name__ + (f" with {self._names_of_transforms}" if self.transforms else "")

    def _refuse_other_transforms(self, i: int, group: Mapping[str, Any]) -> None:
        """Refuse group ``i`` of a checkpoint if it was made with others."""
        refuse_other_transforms(self._names_of_transforms, i, group)

    def _refuse_edited_transforms(self, group: Mapping[str, Any]) -> None:
        """Refuse a group that somebody has written other transforms into."""
        found = group.get("transforms", "")
        if found != self._names_of_transforms:
            raise ValueError(
                f"a group says {found!r} for its transforms, but {type(self).__name__} was made with "
                f"{self._names_of_transforms!r}: all groups have the optimizer's, with options of their own"
            )
