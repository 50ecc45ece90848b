"""Gradient centralization: what the weights of one output have in common is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .transform import Transform


class centralize(Transform):
    r"""Take the mean of each row from the gradient.

    .. math:: g_i \leftarrow g_i - \operatorname{mean}(g_i)

    where :math:`g_i` is the gradient of what belongs to output i: the mean is over all dimensions but the
    first. Biases and other vectors stay as they are.

    Kernels see no rows: this is done by torch before the rule, in a copy of the gradients, and so before all
    other transforms, and the rule stays one kernel.

    Args:
        centralize: whether to (default ``True``), an option of each group.

    Raises:
        TypeError: a transform of the gradient is listed before this one.

    Source: Yong, Huang, Hua, Zhang, *Gradient Centralization: A New Optimization Technique for Deep Neural
    Networks*, ECCV 2020, arXiv 2004.01461.
    """

    prepares_gradients = True

    def __init__(self, centralize: bool = True) -> None:
        super().__init__(centralize=centralize)

    def prepared_gradient(self, param: Tensor, grad: Tensor, group: Mapping[str, Any]) -> Tensor:
        if not group["centralize"] or grad.dim() < 2:
            return grad
        return grad - grad.mean(dim=tuple(range(1, grad.dim())), keepdim=True)
