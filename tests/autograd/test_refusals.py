"""What torch refuses is refused: by torch's own examples of calls that it does not take."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

pytest.importorskip("expecttest", reason="torch's data base of operators needs it")

# Each once gave a number.
ONCE_TAKEN = [
    *("diag", "index_add", "masked_fill", "masked_scatter", "movedim", "narrow", "narrow_copy", "trace"),
    *("scatter_add", "nn.functional.group_norm", "nn.functional.huber_loss", "nn.functional.max_unpool2d"),
    *("nn.functional.max_pool1d", "nn.functional.prelu", "nn.functional.rms_norm", "nn.functional.hardtanh"),
]


def taken(name: str) -> Iterator[str]:
    """The calls that torch refuses, and this autograd does not."""
    from .judge.cases import OPERATORS

    op = OPERATORS[name]
    for number, each in enumerate(op.error_inputs("cpu")):
        sample = each.sample_input

        def call(leaf: Any, sample: Any = sample) -> Any:
            def given(x: Any) -> Any:
                differentiated = isinstance(x, Tensor) and x.is_floating_point() and x.layout == torch.strided
                return leaf(x.detach()) if differentiated else x

            args, kwargs = pytree.tree_map(given, ((sample.input, *sample.args), sample.kwargs))
            variables = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Variable)]
            return op.op(*args, **kwargs), variables

        try:
            call(lambda x: x.requires_grad_())
        except Exception:
            try:
                _, variables = call(Variable)
            except Exception:
                continue
            if variables:
                yield f"{name}, example {number}"


@pytest.mark.parametrize("name", ONCE_TAKEN)
def test_what_was_once_taken_is_refused(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not list(taken(name))


@pytest.mark.slow
def test_all_that_torch_refuses_is_refused():
    from .judge.cases import OPERATORS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [each for name, op in OPERATORS.items() if op.error_inputs_func for each in taken(name)]
    assert not found


@pytest.mark.parametrize("name", ["T", "mT", "H", "mH", "t", "adjoint"])
@pytest.mark.parametrize("rank", range(5))
def test_transposes_are_taken_of_the_shapes_that_torch_takes(name: str, rank: int):
    x, said = torch.arange(2.0**rank).reshape([2] * rank), []
    for leaf in (x, Variable(x)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                y = getattr(leaf, name)
                y = y() if callable(y) and not isinstance(y, Tensor) else y
                said.append([y.detach().tolist(), None])
            except RuntimeError as error:
                said.append([str(error), len(warned) and None])
    assert said[0] == said[1]


def test_asking_leaves_no_trace():
    """Neither in the arguments nor in random numbers, and each form of arguments is asked for once."""
    draws, means = [], []
    for leaf in (torch.ones(4, 3, requires_grad=True), Variable(torch.ones(4, 3))):
        mean, var = torch.zeros(3), torch.ones(3)
        torch.manual_seed(0)
        y = torch.nn.functional.dropout(leaf * 2, 0.5)
        torch.nn.functional.batch_norm(y, mean, var, training=True)
        draws.append([y.detach(), torch.rand(2)])
        means.append([mean, var])
    torch.testing.assert_close(draws[1], draws[0])
    torch.testing.assert_close(means[1], means[0])


def gradient(function: Any, x: Any) -> Any:
    function(x).backward()
    return x.grad


def hooked(hook: Any) -> Any:
    def program(x: Any) -> Any:
        y = x * x
        y.register_hook(hook)
        return y.sum()

    return program


def in_inference_mode(x: Any) -> Any:
    with torch.inference_mode():
        constant = torch.ones(2)
    return constant.mul_(x).sum()


def anomaly(x: Any) -> Any:
    with torch.autograd.detect_anomaly(check_nan=True):
        torch.sqrt(x - 5).sum().backward()


REFUSED = {
    "a hook with another shape": hooked(lambda g: g.sum()),
    "a hook with another dtype": hooked(lambda g: g.double()),
    "a hook with no tensor": hooked(lambda g: 3),
    "one gradient for two results": lambda x: torch.autograd.grad((x.sum(), x.prod()), x, (torch.ones(()),))[
        0
    ],
    "writing into a tensor of inference mode": in_inference_mode,
    "nan in anomaly mode": anomaly,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected in SqrtBackward0")
@pytest.mark.parametrize("what", REFUSED)
def test_errors_are_of_torch_s_type(what: str):
    raised = []
    for leaf in (torch.ones(2, requires_grad=True), Variable(torch.ones(2))):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is compared
            gradient(REFUSED[what], leaf)
        raised.append(caught.type)
    assert raised[0] is raised[1]


def test_integers_go_into_out_as_in_torch():
    x = torch.tensor([1.0, 3.0, 2.0])
    place, larger = torch.empty((), dtype=torch.long), torch.empty(3, dtype=torch.bool)
    with ag.record():
        assert torch.argmax(Variable(x), out=place) is place
    assert torch.gt(x.requires_grad_(), 1.5, out=larger) is larger
    assert torch.gt(Variable(x), 1.5, out=larger.clone()).tolist() == larger.tolist() == [False, True, True]
    assert place == 1


@pytest.mark.parametrize("function", [torch.linalg.inv, torch.kron, torch.cumsum, torch.fmod])
def test_no_place_for_the_result_is_as_if_none_were_named(function: Any) -> None:
    """Functions of torch's that are written in Python hand on `out=None`."""
    x, others = torch.tensor([[2.0, 1.0], [0.5, 3.0]]), {torch.kron: (torch.eye(2),), torch.cumsum: (0,)}
    more = others.get(function, () if function is torch.linalg.inv else (1.5,))
    mine, theirs = Variable(x), x.clone().requires_grad_()
    for each in (mine, theirs):
        function(each, *more, out=None).square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
