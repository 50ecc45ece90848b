# ruff: noqa: E501, RUF043
"""Variables: accumulation, memory, depth, and errors that say what to do."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable
from torchopt_course.autograd.reverse import Node

# -- what backward leaves ------------------------------------------------------------------------------------


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


# -- memory and depth ----------------------------------------------------------------------------------------


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


# -- errors --------------------------------------------------------------------------------------------------


def test_a_second_backward_names_the_operation():
    x = Variable(2.0)
    y = torch.sin(x)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through sin for the second time.*retain_graph=True"):
        y.backward()
    z = torch.cos(x)
    z.backward(retain_graph=True)
    z.backward()


def test_a_changed_saved_tensor_is_named_with_its_versions():
    x = Variable(torch.ones(2, 3))
    y = torch.exp(x)
    y.data.add_(1)
    with pytest.raises(
        RuntimeError, match=r"exp needs its result \(float32 \(2, 3\)\).*version 0 .* version 1 now"
    ):
        y.sum().backward()
    w = torch.ones(3)
    z = (x * w).sum()
    w.zero_()
    with pytest.raises(RuntimeError, match="mul needs its argument 'b'"):
        z.backward()
    w = torch.ones(3)
    z = (x + w).sum()
    w.zero_()  # not needed for the derivative
    z.backward()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.backward(), RuntimeError, r"single number, such as a loss; this result has shape \(2,\)"),
        (lambda x: x.backward(torch.ones(3)), RuntimeError, r"gradient has shape \(3,\).*shape \(2,\)"),
        (lambda x: x.sum().backward(2.0), TypeError, "Tensors or Nones, but got float"),
        (lambda x: x.sum().backward(inputs=[]), RuntimeError, "one or more"),
        (lambda x: Variable(torch.arange(3)), RuntimeError, "floating-point.*int64"),
        (lambda x: Variable(torch.ones(2, dtype=torch.cfloat)), TypeError, "must be real"),
        (lambda x: torch.nextafter(x, x), NotImplementedError,
         r"torch.nextafter.*add it:\n.*\n.*\n.*@primitive\(torch.nextafter, x="),
        (lambda x: x.numpy(), RuntimeError, r"x.detach\(\).numpy"),
        (lambda x: torch.from_dlpack(x), BufferError, r"x.detach\(\)"),
        (lambda x: x.nonsense, AttributeError, "nonsense"),
        (lambda x: copy.deepcopy(x * 2), RuntimeError, "past"),
        (lambda x: setattr(x, "grad", x), RuntimeError, "its own grad"),
        (lambda x: setattr(x, "grad", torch.ones(2).double()), RuntimeError, "float64.*float32"),
        (lambda x: torch.nn.functional.embedding(torch.tensor([0]), x.reshape(2, 1), sparse=True),
         NotImplementedError, "sparse"),
    ],
)  # fmt: skip
def test_errors_are_clear(call, error, message: str):
    with pytest.raises(error, match=f"(?s){message}"):
        call(Variable([1.0, 2.0]))


def test_a_variable_from_a_finished_trace():
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    ag.grad(f)(torch.ones(2))
    with pytest.raises(RuntimeError, match="mul got a variable from a finished trace"):
        kept[0] * 2
    ag.jvp(f, (torch.ones(2),), (torch.ones(2),))
    with pytest.raises(RuntimeError, match="finished trace"):
        torch.sin(kept[1])
    with pytest.raises(RuntimeError, match="use autograd.grad"):
        ag.grad(lambda x: x.sum().backward())(torch.ones(2))


# -- a primitive of the user's -------------------------------------------------------------------------------


def test_a_primitive_in_one_decorated_definition():
    @ag.primitive(x=lambda g, x: g * 3 * x**2)
    def cube(x):
        return x * x * x

    x = torch.tensor([0.5, -2.0], dtype=torch.float64)
    try:
        assert type(cube(x)) is torch.Tensor
        third = ag.jacfwd(ag.jacrev(ag.grad(lambda x: cube(x).sum())))(x)
        assert third.flatten().nonzero().flatten().tolist() == [0, 7]
        assert third[0, 0, 0].item() == 6.0
    finally:
        del ag.PRIMITIVES["cube"]


def test_a_primitive_may_stand_for_a_function_of_torch():
    from torchopt_course.autograd.dispatch import TABLE

    @ag.primitive(torch.special.erfcx, x=lambda g, x, ans: g * (2 * x * ans - 2 / torch.pi**0.5))
    def erfcx(x):
        return torch.special.erfcx(x)

    try:
        x = torch.tensor([0.5, -1.0], dtype=torch.float64)
        theirs = torch.func.grad(lambda x: torch.special.erfcx(x).sum())(x)
        torch.testing.assert_close(ag.grad(lambda x: torch.special.erfcx(x).sum())(x), theirs)
    finally:
        del ag.PRIMITIVES["erfcx"], TABLE[torch.special.erfcx]


def test_rules_that_cannot_work_are_refused():
    with pytest.raises(TypeError, match="asks for 'y'"):
        ag.primitive(x=lambda g, y: g)(lambda x: x)
    with pytest.raises(TypeError, match="no argument 'z'"):
        ag.primitive(z=lambda g: g)(lambda x: x)

    @ag.primitive(x=lambda g: g[:1])
    def crooked(x):
        return x * 1

    try:
        with pytest.raises(
            RuntimeError, match=r"VJP of crooked gave a gradient of shape \(1,\) .* shape \(2,\)"
        ):
            crooked(Variable([1.0, 2.0])).sum().backward()
    finally:
        del ag.PRIMITIVES["crooked"]

    @ag.primitive(x=lambda g: g.to("meta"))
    def elsewhere(x):
        return x * 1

    try:
        with pytest.raises(RuntimeError, match="gradient on meta for a leaf on cpu"):
            elsewhere(x := Variable([1.0, 2.0])).sum().backward()
        assert x.grad is None
    finally:
        del ag.PRIMITIVES["elsewhere"]
