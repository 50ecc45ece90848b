"""A small automatic differentiation for torch tensors, to read and to use.

Torch computes, this package differentiates. Reading order: ``primitives/elementwise.py`` (a value and its
derivative on one line), ``reverse.py`` (backpropagation is one loop), ``forward.py``, ``transforms.py``.
"""

from torch import enable_grad, no_grad

from . import backward, functions, gradcheck, numerical, primitives, symbolic  # noqa: F401 (three answer torch)
from .forward import hessian, hvp, jacfwd, jvp
from .graph import graph
from .module import functional_call, record
from .primitives import PRIMITIVES, Primitive, primitive
from .primitives.convolution import conv2d_by_unfold
from .primitives.pooling import avg_pool2d_by_unfold, max_pool2d_by_unfold
from .trace import trace
from .transforms import grad, jacrev, value_and_grad, vjp
from .variable import Variable

__all__ = [
    "PRIMITIVES",
    "Primitive",
    "Variable",
    "avg_pool2d_by_unfold",
    "conv2d_by_unfold",
    "enable_grad",
    "functional_call",
    "grad",
    "graph",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "max_pool2d_by_unfold",
    "no_grad",
    "numerical",
    "primitive",
    "primitives",
    "record",
    "symbolic",
    "trace",
    "value_and_grad",
    "vjp",
]
