"""The memory of tensors: who shares it, and who may have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def shares(result: Tensor, source: Tensor) -> bool:
    """Whether an operation that may give a view of its argument did."""
    base = source._base
    return result is source or (result._is_view() and result._base is (source if base is None else base))


def no_plain_tensor(x: Tensor) -> NotImplementedError:
    """Why a tensor of another class, such as a DTensor, cannot be one of ours."""
    return NotImplementedError(f"a {type(x).__name__} cannot be a variable: its numbers are in other tensors")


def as_taken_under_no_grad(result: Any, sources: Iterable[Tensor]) -> Any:
    """What was computed under ``no_grad``, with its views of the tensors in variables as torch gives them.

    Torch remembers, and refuses to have them written to when gradients count
    again: nobody could say whether that is to be recorded.
    """

    def refusing(y: Any) -> Any:
        if type(y) is Tensor and y._is_view() and not torch.is_inference_mode_enabled():
            for source in sources:
                if shares(y, source) and y.dtype == source.dtype and not source.is_inference():
                    # Torch has to see a tensor that requires a gradient: another one of the same memory,
                    # and of the same count of what is written there.
                    of_variable = source.detach().requires_grad_()
                    return of_variable.as_strided(y.shape, y.stride(), y.storage_offset())
        return y

    return pytree.tree_map(refusing, result)


class InMemory(Tensor):
    """The methods of a traced value that hand out its memory, or exchange it."""

    is_forward_mode = False

    def numpy(self, *, force: bool = False) -> Any:
        if not force and self.requires_grad and (torch.is_grad_enabled() or self.is_forward_mode):
            name = type(self).__name__
            raise RuntimeError(f"numpy would lose the derivative of a {name}; use x.detach().numpy()")
        return self.detach().numpy()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy().__array__(*args, **kwargs)

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use x.detach()")
        return self.detach().__dlpack__(*args, **kwargs)

    def set_(self, *source: Any, **named: Any) -> Any:
        """Other memory, under ``no_grad`` as by ``x.data = source``: the past stays."""
        if torch.is_grad_enabled():
            raise RuntimeError("set_() has no derivative: use it under no_grad, or x.data = source")
        plain: list[Any] = [x.detach() if isinstance(x, Tensor) else x for x in source]
        self.data = self.detach().set_(*plain, **named)
        return self
