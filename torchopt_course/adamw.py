"""AdamW: Adam whose weights decay by themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor, optim

from .adam import Adam
from .optimizer import Params, Rounding, StateDtype, Transforms
from .validation import options_of


# torch's class stands there for isinstance() of hosts such as Accelerate: all methods are ours.
class AdamW(Adam, optim.AdamW):
    r"""Adam with decoupled weight decay: the weights shrink by themselves, not through the gradient.

    .. math::
        \theta \leftarrow (1 - \eta \lambda) \, \theta,
            \qquad \text{then Adam's step with } g = \nabla f(\theta)

    An L2 penalty in the gradient would be divided by Adam's scale: weights with large gradients would decay
    less. Drop-in for :class:`torch.optim.AdamW`; arguments and state as :class:`Adam`, but ``weight_decay``
    is 1e-2 by default and always decoupled.

    Source: Loshchilov, Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019.
    """

    _FIXED_OPTIONS = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: StateDtype = None,
        rounding: Rounding = None,
        transforms: Transforms = (),
    ) -> None:
        super().__init__(params, **options_of(locals()), **self._FIXED_OPTIONS)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Adam's checkpoints load into AdamW, and then it is still AdamW. Older ones do not say it.
        for group in self.param_groups:
            group.update(self._FIXED_OPTIONS)
