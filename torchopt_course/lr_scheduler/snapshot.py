"""Try something out on a model and its optimizer, and put everything back, bit for bit."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from .loader_state import Restore, loader_states


@contextmanager
def put_back_afterwards(
    model: nn.Module,
    optimizer: Optimizer,
    also: Iterable[Any] = (),
    batches: Any = None,
) -> Iterator[None]:
    """Whatever happens in the ``with`` block, also an exception or Ctrl-C, leaves no trace in

    - the model: parameters, buffers, gradients, which parameters need one, the training mode and the extra
      state of each module,
    - the optimizer, and those that it wraps: state, parameter groups, and tensors, numbers, lists and
      dictionaries that are their attributes, such as the slow weights of a Lookahead,
    - objects in ``also``, by their ``state_dict`` and ``load_state_dict``, such as a ``GradScaler``,
    - random numbers: of torch (CPU and CUDA), of Python, of numpy if it has been imported,
    - ``batches``: generators and counters of a loader and its samplers, see
      :func:`~torchopt_course.lr_scheduler.loader_state.loader_states`.

    Tensors keep their identity and their memory, so that whoever holds them need not know of this.

    Raises:
        ValueError: a lazy module that has not been run yet, and so has no parameters.
        TypeError: something in ``also`` that has no ``state_dict``.
    """
    content = Contents()
    restores: list[Restore] = [*random_states(), *loader_states(batches)]
    restores += [content.of_object(one) for one in also]
    for module in model.modules():
        restores.append(partial(setattr, module, "training", module.training))
        if type(module).set_extra_state is not nn.Module.set_extra_state:
            restores.append(partial(module.set_extra_state, deepcopy(module.get_extra_state())))
        content.remember(module._parameters)
        content.remember(module._buffers)
    for one in wrapped_by(optimizer):
        for attributes in (vars(one), one.state, one.param_groups):  # a wrapper's may be properties
            content.remember(attributes)
    held = [param for group in optimizer.param_groups for param in group["params"]]
    for param in {id(param): param for param in [*model.parameters(), *held]}.values():
        content.remember(param.grad)
        restores.append(partial(setattr, param, "grad", param.grad))
        restores.append(partial(param.requires_grad_, param.requires_grad))

    with ExitStack() as afterwards:  # goes through all of them, even if one fails
        for restore in [*restores, *content.restores.values()]:
            afterwards.callback(restore)
        yield


class Contents:
    """Remembers what is in tensors, dictionaries and lists, and in those inside of them, each once."""

    def __init__(self) -> None:
        self.restores: dict[int, Restore] = {}

    def remember(self, value: Any) -> None:
        """Numbers, strings and tuples cannot change; but what is inside of a tuple can."""
        if isinstance(value, tuple):
            for item in value:
                self.remember(item)
        elif isinstance(value, Tensor | dict | list) and id(value) not in self.restores:
            if isinstance(value, Tensor):
                self.restores[id(value)] = self._tensor(value)
            else:
                self.restores[id(value)] = self._container(value)
                for item in value.values() if isinstance(value, dict) else value:
                    self.remember(item)

    def of_object(self, owner: Any) -> Restore:
        """The state of an object, which may hold the object's own tensors or copies of them."""
        if not (hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict")):
            raise TypeError(f"`also` takes objects with state_dict and load_state_dict, got {owner!r}")
        state = owner.state_dict()
        self.remember(state)
        return partial(owner.load_state_dict, state)

    def _tensor(self, tensor: Tensor) -> Restore:
        if is_lazy(tensor):
            raise ValueError("a lazy module has no parameters yet: run the model once before")
        memory, content = tensor.data, tensor.detach().clone()

        @torch.no_grad()
        def restore() -> None:
            if tensor.layout == torch.strided and tensor.data_ptr() != memory.data_ptr():
                tensor.data = memory  # it was given another by `tensor.data = ...`
            tensor.copy_(content)

        return restore

    def _container(self, container: dict[Any, Any] | list[Any]) -> Restore:
        items = container.copy()

        def restore() -> None:
            container.clear()
            if isinstance(container, dict):
                container.update(items)
            else:
                container.extend(items)

        return restore


def wrapped_by(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizer itself, and those among its attributes, as a Lookahead or :func:`as_lr` has one."""
    found = [optimizer]
    for one in found:  # which grows; two may hold one another
        for value in vars(one).values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                if isinstance(inner, Optimizer) and not any(inner is known for known in found):
                    found.append(inner)
    return found


def random_states() -> list[Restore]:
    """The random numbers of the whole process."""
    restores: list[Restore] = [
        partial(random.setstate, random.getstate()),
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_initialized():
        restores.append(partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if (numpy := sys.modules.get("numpy")) is not None:
        restores.append(partial(numpy.random.set_state, numpy.random.get_state()))
    return restores
