"""What is judged: each sample of torch's data bases, in each form in which torch takes it."""

from __future__ import annotations

import copy
import inspect
import os
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

from torchopt_course import autograd as ag

from .left_out import (
    FIRST_ORDER_ONLY,
    OF_PROBABILITIES,
    OTHER_AT_TIES,
    SMOOTH_ONLY,
    TORCH_DIES,
    TORCH_ROUNDS,
    is_by_chance,
    is_large,
    leaves_of,
)

DEVICE = os.environ.get("JUDGE_DEVICE", "cpu")  # where all of it is computed: cuda on a GPU

# Operators that are no functions of tensors: there is nothing to differentiate in them.
OPERATORS = {op.full_name: op for op in op_db if torch.float64 in op.dtypes and op.supports_autograd}
MODULES = {info.name.replace("_", "."): info for info in module_db if info.dtypes}
LARGE = 100_000  # elements of all inputs: no second derivatives of such
MOST = 40  # samples of one operator: some have more than a thousand, which differ in nothing but numbers


@dataclass
class Case:
    """A program and where to differentiate it.

    Attributes:
        owner: the operator or module.
        form: how it is called: "function", "method", "in place", "keywords", "alias ...", "module".
        program: from the tensors that are differentiated, variables or torch's own, to the outputs. Its
            second argument says whose they are.
        inputs: their values.
        orders: 1 or 2, how often to differentiate.
        beside: plain tensors that are rounded to what they can hold, and with them what torch makes of them.
    """

    owner: str
    form: str
    index: int
    program: Callable[[Sequence[Any], bool], Any]
    inputs: list[Tensor]
    orders: int = 2
    beside: Sequence[Tensor] = ()

    def __str__(self) -> str:
        dtype = str(self.inputs[0].dtype).removeprefix("torch.") if self.inputs else ""
        return f"{self.owner} [{self.form}, sample {self.index}, {dtype}]"


def cases_of(name: str, most: int = MOST) -> Iterator[Case]:
    return of_operator(name, most) if name in OPERATORS else of_module(name)


# -- operators -----------------------------------------------------------------------------------------------


def of_operator(name: str, most: int) -> Iterator[Case]:
    """float64 in all forms, a few samples in float32 and bfloat16."""
    op = OPERATORS[name]
    samples = [] if (name, torch.float64) in OTHER_AT_TIES else _some(_samples(op, torch.float64), most)
    for index, sample in enumerate(samples):
        if any(isinstance(x, Tensor) and x.is_complex() for x in leaves_of(sample)):
            continue  # variables are real
        if (name in TORCH_ROUNDS and is_large(sample)) or is_by_chance(name, sample, DEVICE):
            continue
        for form, function in _forms(op, sample, index):
            wrapped = partial(op.gradcheck_wrapper, function)  # what makes a random matrix symmetric, for one
            case = _case(
                op,
                form,
                index,
                sample,
                wrapped,
                op.supports_gradgrad and form == "function" and name not in FIRST_ORDER_ONLY,
            )
            yield case
            if form == "function":
                yield from _partly(case)
                yield from _at_corners(case)
    for dtype in (torch.float32, torch.bfloat16):
        if (name, dtype) in TORCH_DIES | OTHER_AT_TIES:
            continue
        kind = torch.device(DEVICE).type
        if dtype in op.supported_dtypes(kind) and dtype in op.supported_backward_dtypes(kind):
            for index, sample in enumerate(_some(_samples(op, dtype), 3)):
                if is_by_chance(name, sample, DEVICE):
                    continue
                wrapped = partial(op.gradcheck_wrapper, op.op)
                yield _case(
                    op, f"function {str(dtype).removeprefix('torch.')}", index, sample, wrapped, False
                )


def _samples(op: Any, dtype: torch.dtype) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            return list(op.reference_inputs(DEVICE, dtype, requires_grad=True))
        except ValueError:  # some reference samples are integers, which cannot require a gradient
            return list(op.sample_inputs(DEVICE, dtype, requires_grad=True))


def _some(samples: list[Any], most: int) -> list[Any]:
    if len(samples) <= most:
        return samples
    chosen = sorted(random.Random(0).sample(range(len(samples)), most - 1))
    return [samples[i] for i in sorted({0, *chosen})]


def _forms(op: Any, sample: Any, index: int) -> Iterator[tuple[str, Callable[..., Any]]]:
    yield "function", op.op
    if index >= 6:  # how a function is called has little to do with what it is given
        return
    if op.method_variant is not None:
        yield "method", _method(op.method_variant)
    for what in (op.inplace_variant, op.inplace_operator_variant):
        if what is not None and not sample.broadcasts_input:
            yield f"in place {getattr(what, '__name__', '')}", _in_place(what)
    if op.operator_variant is not None:
        yield "operator", op.operator_variant
    for alias in op.aliases:
        yield f"alias {alias.name}", alias.op
        if alias.method_variant is not None:
            yield f"alias method {alias.name}", _method(alias.method_variant)
        if alias.inplace_variant is not None and not sample.broadcasts_input:
            yield f"alias in place {alias.name}", _in_place(alias.inplace_variant)
    if index < 3:
        for which, by_name in enumerate(_by_keywords(op, sample)):
            yield f"keywords {which}", by_name


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """As it is called: of the object."""
    name = getattr(function, "__name__", "")
    if getattr(Tensor, name, None) is not function:
        return function
    return lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: _method(function)(x.clone(), *args, **kwargs)


def _by_keywords(op: Any, sample: Any) -> Iterator[Callable[..., Any]]:
    """The same call with the arguments by the names that torch's schemas and signatures give them."""
    for names in _argument_names(op):
        if len(sample.args) + 1 > len(names) or (not sample.args and not names):
            continue
        if set(names[: len(sample.args) + 1]) & set(sample.kwargs):
            continue

        def call(*args: Any, names: Sequence[str] = names, **kwargs: Any) -> Any:
            return op.op(**dict(zip(names, args, strict=False)), **kwargs)

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                call(sample.input, *sample.args, **sample.kwargs)
            except Exception:  # not a name of this overload
                continue
        yield call


def _argument_names(op: Any) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    if inspect.isfunction(op.op):
        if op.op.__module__.startswith(("torch.nn", "torch.functional")):
            found.append(tuple(inspect.signature(op.op).parameters))
    else:
        name = (op.aten_name or op.name).removeprefix("nn.functional.").replace(".", "_")
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
            names = tuple(a.name for a in schema.arguments)
            found += [tuple("input" if n == "self" else n for n in names)]
    return list(dict.fromkeys(found))


def _case(op: Any, form: str, index: int, sample: Any, function: Callable[..., Any], second: bool) -> Case:
    leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]

    def program(variables: Sequence[Any], ours: bool) -> Any:
        given = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for place, variable in zip(places, variables, strict=True):
            given[place] = variable
        input, args, kwargs = pytree.tree_unflatten(given, spec)
        return sample.output_process_fn_grad(function(input, *args, **kwargs))

    inputs = [leaves[i] for i in places]
    small = sum(x.numel() for x in inputs) < LARGE
    return Case(op.full_name, form, index, program, inputs, 2 if second and small else 1)


def _partly(whole: Case) -> Iterator[Case]:
    """Only one of several arguments is a variable, the others are plain tensors."""
    if len(whole.inputs) > 1:
        chosen = whole.index % len(whole.inputs)

        def program(variables: Sequence[Any], ours: bool) -> Any:
            given: list[Any] = [x.detach().clone() for x in whole.inputs]
            given[chosen] = variables[0]
            return whole.program(given, ours)

        alone = [whole.inputs[chosen]]
        yield Case(whole.owner, f"only argument {chosen}", whole.index, program, alone, 1, whole.inputs)


# Where functions have kinks, bounds, ties and poles.
CORNERS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.0, -3.0, 6.0, -6.0, 20.0, -20.0, 100.0, -0.0)


def _at_corners(whole: Case) -> Iterator[Case]:
    """Once for each operator: all numbers are such corners, and arguments of one shape meet in ties."""
    if whole.index or whole.owner.startswith(SMOOTH_ONLY):
        return
    if DEVICE != "cpu" and whole.owner in OF_PROBABILITIES:
        return
    corners = torch.tensor(CORNERS, dtype=torch.float64)
    for shift, step in ((0, 1), (1, 1), (0, 3)):
        inputs = []
        for n, x in enumerate(whole.inputs):
            order = (torch.arange(x.numel()) * (step if n else 1) + shift * n) % len(corners)
            inputs.append(corners[order].reshape(x.shape).to(x.device, x.dtype))
        yield replace(whole, form=f"at corners {shift} {step}", inputs=inputs, orders=1)
        if len(inputs) == 1:
            return


# -- modules -------------------------------------------------------------------------------------------------


def of_module(name: str) -> Iterator[Case]:
    info = MODULES[name]
    for training in (True, False):
        torch.manual_seed(0)
        inputs = info.module_inputs_func(
            info, device=DEVICE, dtype=torch.float64, requires_grad=True, training=training
        )
        for index, each in enumerate(inputs):
            made = _module_case(name, info, index, each, training)
            if made is not None:
                yield made


def _module_case(name: str, info: Any, index: int, sample: Any, training: bool) -> Case | None:
    torch.manual_seed(0)
    arguments = sample.constructor_input
    try:
        module = (
            info.module_cls(*arguments.args, **arguments.kwargs).to(DEVICE, torch.float64).train(training)
        )
        if info.is_lazy:
            module(*copy.deepcopy(sample.forward_input.args), **copy.deepcopy(sample.forward_input.kwargs))
    except Exception:  # not for this machine
        return None
    leaves, spec = pytree.tree_flatten((sample.forward_input.args, sample.forward_input.kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    parameters = dict(module.named_parameters())

    def program(variables: Sequence[Any], ours: bool) -> Any:
        given = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for place, variable in zip(places, variables, strict=False):
            given[place] = variable
        args, kwargs = pytree.tree_unflatten(given, spec)
        weights = dict(zip(parameters, variables[len(places) :], strict=True))
        functional_call = ag.functional_call if ours else torch.func.functional_call
        return functional_call(copy.deepcopy(module), weights, args, kwargs)

    inputs = [*[leaves[i] for i in places], *[p.detach() for p in parameters.values()]]
    orders = 2 if info.supports_gradgrad and name not in FIRST_ORDER_ONLY else 1
    return Case(name, "training" if training else "evaluation", index, program, inputs, orders)
