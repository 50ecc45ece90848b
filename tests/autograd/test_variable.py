"""Variables: what backward leaves, memory, depth."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
import torch

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable
from torchopt_course.autograd.reverse import Node


def test_gradients_add_up():
    x = Variable([1.0, 2.0])
    (x * x).sum().backward()
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5.0, 7.0]
    x.grad = None
    x.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_gradients_of_two_leaves_share_no_memory():
    x, y, seed = Variable(torch.zeros(3)), Variable(torch.zeros(3)), torch.ones(3)
    (x + y).backward(seed)
    x.grad.mul_(5)
    assert y.grad.tolist() == seed.tolist() == [1.0, 1.0, 1.0]


def test_who_writes_into_a_gradient_changes_nothing_that_a_recorded_sweep_has_saved():
    x, y = Variable(2.0), Variable(3.0)
    (x + y * y).backward(create_graph=True)
    x.grad.zero_()
    (second,) = torch.autograd.grad(y.grad, [y])
    assert second.item() == 2.0


def test_only_the_named_leaves_get_gradients():
    x, y = Variable(2.0), Variable(3.0)
    (x * y).backward(inputs=[x])
    assert x.grad.item() == 3.0
    assert y.grad is None


def test_results_may_be_named_as_well():
    for leaf in (torch.ones(3, requires_grad=True), Variable(torch.ones(3))):
        h = leaf * 2
        (h * h).sum().backward(inputs=[h], retain_graph=True)
        h.prod().backward(inputs=[h, leaf])
        assert h.grad.tolist() == [8.0, 8.0, 8.0]
        assert leaf.grad.tolist() == [8.0, 8.0, 8.0]


def test_a_leaf_is_saved_as_a_tensor_is(tmp_path):
    x, frozen = Variable([1.0, 2.0]), Variable([3.0]).requires_grad_(False)
    (x * x).sum().backward()
    torch.save({"x": x, "frozen": frozen}, tmp_path / "file")
    for loaded in (torch.load(tmp_path / "file"), pickle.loads(pickle.dumps({"x": x, "frozen": frozen}))):
        assert type(loaded["x"]) is type(loaded["frozen"]) is Variable
        assert (loaded["x"].tolist(), loaded["x"].grad) == ([1.0, 2.0], None)
        assert (loaded["x"].requires_grad, loaded["frozen"].requires_grad) == (True, False)
        loaded["x"].sum().backward()
        assert loaded["x"].grad.tolist() == [1.0, 1.0]


def test_no_grad_and_detach_give_plain_tensors():
    x = Variable([1.0, -2.0])
    with ag.no_grad():
        assert type(x * 2) is torch.Tensor
    for constant in (x.detach(), x > 0, x.argmax(), torch.zeros_like(x), x.shape, x.size(0)):
        assert not isinstance(constant, Variable)
    y = x * x.detach()
    y.sum().backward()
    assert x.grad.tolist() == [1.0, -2.0]


def test_a_plain_tensor_that_requires_a_gradient_is_an_input():
    w = torch.ones(3, requires_grad=True)
    y = Variable([1.0, 2.0, 3.0]) * w
    assert y.data.grad_fn is None  # torch has recorded nothing
    y.sum().backward()
    assert w.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_variable_behaves_like_a_number_and_a_list():
    x = Variable([[1.0, 2.0], [3.0, 4.0]])
    assert float(x.sum()) == 10.0
    assert len(x) == 2
    assert [row.sum().item() for row in x] == [3.0, 7.0]
    assert f"{x[0, 1]:.2f}" == "2.00"
    assert repr(x[0].sum()) == "Variable(3., made by sum)"
    assert (x.T.shape, x.dim(), x.dtype, x.device.type) == ((2, 2), 2, torch.float32, "cpu")
    assert 3.0 in x
    assert bool(x.sum() > 9)


def test_a_chain_of_100_000_operations():
    x = Variable(torch.tensor(1.0, dtype=torch.float64))
    y = x
    for _ in range(100_000):
        y = -y
    y.backward()
    assert x.grad.item() == 1.0
    assert len(ag.graph(y).nodes) == 100_001
    del y  # nor does taking it apart recurse
    assert ag.grad(lambda x: _negated(x, 50_001))(x.data).item() == -1.0


def _negated(x, times: int):
    for _ in range(times):
        x = -x
    return x


def test_a_diamond_of_200_doublings_is_walked_once():
    x = Variable(torch.tensor(1.0, dtype=torch.float64))
    y = x
    for _ in range(200):
        y = y + y  # 2 ** 200 paths
    y.backward()
    assert x.grad.item() == 2.0**200
    assert len(ag.graph(y).nodes) == 201


def test_saved_values_are_freed_while_backward_sweeps():
    x = Variable(torch.ones(10))
    alive: list[weakref.ref] = []
    seen: list[int] = []

    @ag.primitive(x=lambda g, x: (seen.append(sum(r() is not None for r in alive)), g)[1])
    def probe(x):
        alive.append(weakref.ref(x))
        return x + 1

    y = x
    for _ in range(5):
        y = probe(y * 2)
    y = y.sum()
    y.backward()
    assert seen == [5, 4, 3, 2, 1]
    assert not any(r() is not None for r in alive)


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_reference_cycles(create_graph: bool):
    def count() -> int:
        # By type: isinstance() asks the object, and others' dead weak proxies answer with an error.
        return sum(issubclass(type(o), Node) for o in gc.get_objects())

    def one_graph() -> None:
        x = Variable(torch.ones(4))
        y = x
        for _ in range(100):
            y = torch.sin(y) * x
        y.sum().backward(create_graph=create_graph)
        ag.grad(lambda x: (x * x).sum())(torch.ones(3))

    gc.collect()
    gc.disable()
    try:
        others = count()  # leaves of parameters that other tests keep
        for _ in range(200 if not create_graph else 20):
            one_graph()
        assert count() == others
    finally:
        gc.enable()
