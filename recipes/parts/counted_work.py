"""What a computation costs, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What only makes, moves or hands out memory; views are known by themselves.
BOOKKEEPING = frozenset(
    {
        "_local_scalar_dense", "_to_copy", "clone", "copy_", "empty", "empty_like", "fill_", "lift_fresh",
        "ones_like", "scalar_tensor", "stack", "zero_", "zeros", "zeros_like",
    }
)  # fmt: skip


MANY_INPUTS, MANY_RESULTS = "n inputs, 1 result", "1 input, n results"
Costs: TypeAlias = dict[tuple[str, str], dict[int, float]]
"""Of all derivatives, in evaluations of the program: by one of these shapes and the way, and then by n."""


class CountedWork(TorchDispatchMode):
    """Within this block each operation of torch counts once for each number that it takes or makes.

    An addition of two vectors of 100 counts 100, and so does the sum of one. It sees what torch's kernels are
    called with, whoever calls them, and the count is the same in every run. Attribute: `numbers`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in BOOKKEEPING:
            self.numbers += max(t.numel() for t in tree_leaves((args, result)) if isinstance(t, Tensor))
        return result


def work(compute: Callable[..., object], *inputs: Tensor) -> int:
    """How much it counts to compute something of these."""
    counted = CountedWork()
    with counted:
        compute(*inputs)
    return counted.numbers
