"""Leave out a step whose gradients are not finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..engines.local import gathered, is_distributed
from .transform import Transform


class skip_nonfinite(Transform):
    """Leave everything as it is in a step in which an element of any gradient is infinite or NaN.

    No parameter, state or step count of the optimizer changes then, as under ``torch.amp.GradScaler``; hooks
    and schedulers are not told. The gradients are looked at as they come, before other transforms, in one
    pass more. On a GPU the host does not wait for the answer where the fused engine takes all parameters.
    """

    skips_nonfinite = True

    def __init__(self) -> None:
        super().__init__()


def not_finite(grads: Iterable[Tensor]) -> Tensor:
    """1 on the gradients' device if one of them is infinite or NaN somewhere, and else 0."""
    norms: list[Tensor] = []
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for grad in grads:
        values = grad.detach()
        if values.layout != torch.strided:
            values = values._values() if values.layout == torch.sparse_coo else values.values()
        if is_distributed({type(values)}):
            norms.append(gathered(torch.linalg.vector_norm(values, torch.inf)))
        elif values.numel():
            alike.setdefault((values.device, values.dtype), []).append(values)
    norms += [_norms(several) for several in alike.values()]
    device = next((norm.device for norm in norms if norm.device.type != "cpu"), torch.device("cpu"))
    found = [norm.isfinite().all().logical_not().to(device) for norm in norms]
    return torch.stack(found).any().float() if found else torch.zeros((), device=device)


def _norms(several: list[Tensor]) -> Tensor:
    """For each of some tensors alike a number that is finite if all its elements are."""
    if several[0].is_cpu:
        # The sum of squares is the faster one here; where it is not finite, it may have overflowed.
        norms = torch.stack(torch._foreach_norm(several))
        if bool(norms.isfinite().all()):
            return norms
    return torch.stack(torch._foreach_norm(several, torch.inf))
