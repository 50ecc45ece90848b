"""Are these still the same states? Asked without keeping any of them alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import Tensor


class SameTensors:
    """Some of an optimizer's state tensors, known by their ids for as long as they live.

    A plan must not own what it plans for: states that are moved to the host must free the memory that they
    had. An id alone would come to mean another object once its own is gone; so each tensor's weak reference
    reports its end.

    Not for parameters: ``torch.utils.swap_tensors``, by which ``module.to()`` may work, refuses tensors
    that somebody has a weak reference to.

    Args:
        tensors: what to remember, in this order.

    Attributes:
        gone: the references of those that do not exist any more.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.gone: list[weakref.ref[Tensor]] = []
        # The callback is the list's method, so that it does not hold this object.
        self._references = [weakref.ref(tensor, self.gone.append) for tensor in tensors]
        self._ids = list(map(id, self.now()))

    @property
    def any_is_gone(self) -> bool:
        """Whether one of the tensors does not exist any more."""
        return bool(self.gone)

    def now(self) -> list[Tensor]:
        """Those of the tensors that exist, in order."""
        return [tensor for reference in self._references if (tensor := reference()) is not None]

    def are(self, tensors: Iterable[Tensor]) -> bool:
        """Whether these are the very objects, in the same order."""
        return not self.gone and list(map(id, tensors)) == self._ids
