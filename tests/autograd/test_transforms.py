"""grad, vjp, jvp and their relatives against torch.func: conventions, nesting, no confusion."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from torchopt_course import autograd as ag


def f(x):
    return (torch.sin(x) * x**3).sum() + torch.prod(x) * torch.exp(-x[0])


def vector(x):
    return torch.stack([x[0] * x[1], torch.exp(x[2]) + x[0] ** 2])


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)


def same(mine, theirs, tolerance: float = 1e-12) -> None:
    flat, spec = torch.utils._pytree.tree_flatten(mine)
    expected, expected_spec = torch.utils._pytree.tree_flatten(theirs)
    assert spec == expected_spec
    for a, b in zip(flat, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "jacrev", "jacfwd", "hessian"])
def test_scalar_functions(name: str, x: Tensor):
    theirs = (
        torch.func.grad_and_value(f)(x)[::-1] if name == "value_and_grad" else getattr(torch.func, name)(f)(x)
    )
    same(getattr(ag, name)(f)(x), theirs)


@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "hessian"])
def test_vector_functions(name: str, x: Tensor):
    same(getattr(ag, name)(vector)(x), getattr(torch.func, name)(vector)(x))


@pytest.mark.parametrize("modes", list(itertools.product(["jacrev", "jacfwd"], repeat=3)))
def test_all_nestings_agree_to_third_order(modes, x: Tensor):
    mine, theirs = vector, vector
    for mode in modes:
        mine, theirs = getattr(ag, mode)(mine), torch.func.jacrev(theirs)
    same(mine(x), theirs(x), 1e-11)


@pytest.mark.parametrize("modes", list(itertools.product(["jacrev", "jacfwd"], repeat=2)))
@pytest.mark.parametrize("argnums", [1, (0, 1), (1, 0)])
def test_trees_of_arguments_and_outputs(modes, argnums, x: Tensor):
    def tree(w, y):
        return {"a": w[0] * y["k"].sum(), "b": (torch.sin(w[1]["z"]) @ y["k"], y["k"] ** 2)}

    args = ((x[0], {"z": x[:2]}), {"k": x[1:]})
    outer, inner = modes
    same(getattr(ag, inner)(tree, argnums)(*args), getattr(torch.func, inner)(tree, argnums)(*args))
    mine = getattr(ag, outer)(getattr(ag, inner)(tree, argnums), 0)(*args)
    same(mine, torch.func.jacrev(torch.func.jacrev(tree, argnums), 0)(*args))


def test_vjp_and_jvp_follow_torch_func(x: Tensor):
    g, t = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 1.0, -1.0]).double()
    output, pull = ag.vjp(vector, x)
    expected, theirs = torch.func.vjp(vector, x)
    same(output, expected)
    same(pull(g), theirs(g))
    same(pull(2 * g), theirs(2 * g))  # any number of times
    same(ag.jvp(vector, (x,), (t,)), torch.func.jvp(vector, (x,), (t,)))


def test_aux_is_handed_out(x: Tensor):
    def both(x):
        return f(x), {"square": x * x, "name": "aux"}

    value, gradient = ag.value_and_grad(both, has_aux=True)(x)[0], ag.grad(both, has_aux=True)(x)
    same(value[0], f(x))
    same(gradient[0], torch.func.grad(f)(x))
    for aux in (
        value[1],
        gradient[1],
        ag.vjp(both, x, has_aux=True)[2],
        ag.jvp(both, (x,), (x,), has_aux=True)[2],
    ):
        assert aux["name"] == "aux"
        assert type(aux["square"]) is Tensor
        same(aux["square"], x * x)
    same(ag.jacrev(both, has_aux=True)(x)[0], torch.func.grad(f)(x))
    same(ag.jacfwd(both, has_aux=True)(x)[0], torch.func.grad(f)(x))


def test_hvp_is_the_hessian_times_a_direction(x: Tensor):
    t = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64)
    (mine,) = ag.hvp(f, (x,), (t,))
    same(mine, torch.func.hessian(f)(x) @ t)


# -- perturbation confusion: the derivative of one transform must not leak into another ----------------------


@pytest.mark.parametrize("inner", ["grad", "jvp"])
@pytest.mark.parametrize("outer", ["grad", "jvp"])
def test_no_perturbation_confusion(inner: str, outer: str):
    # d/dx [x d/dy (x + y)] = 1. A system without levels says 2.
    def derivative(kind: str, g):
        if kind == "grad":
            return ag.grad(g)
        return lambda x: ag.jvp(g, (x,), (torch.ones(()),))[1]

    one = torch.ones(())
    got = derivative(outer, lambda x: x * derivative(inner, lambda y: x + y)(one))(one)
    assert got.item() == 1.0


def test_levels_are_restored_after_an_error(x: Tensor):
    def fails(x):
        raise KeyError("mine")

    for transform in (ag.grad(fails), lambda x: ag.jvp(fails, (x,), (x,))):
        with pytest.raises(KeyError, match="mine"):
            ag.grad(lambda x, transform=transform: transform(x).sum())(x)
    from torchopt_course.autograd import traced

    assert traced.recording.depth == 0
    same(ag.hessian(f)(x), torch.func.hessian(f)(x))


def test_a_transform_of_variables_is_recorded(x: Tensor):
    # As torch.func.grad inside of an ordinary recording: the gradient penalty of a WGAN needs it.
    w, leaf = ag.Variable(x), x.clone().requires_grad_()
    (ag.grad(lambda y: (w * torch.sin(y * w)).sum())(x) ** 2).sum().backward()
    (torch.func.grad(lambda y: (leaf * torch.sin(y * leaf)).sum())(x) ** 2).sum().backward()
    same(w.grad, leaf.grad)


def test_no_grad_inside_is_a_constant_and_outside_does_not_matter(x: Tensor):
    def inside(x):
        with torch.no_grad():
            c = x**2
        return (x**3 - c).sum()

    same(ag.grad(inside)(x), 3 * x**2)
    with ag.no_grad():
        same(ag.grad(f)(x), torch.func.grad(f)(x))
        assert type(ag.grad(f)(ag.Variable(x))) is Tensor


def test_a_direction_may_lie_otherwise_in_memory():
    x, t = torch.randn(2, 3), torch.randn(3, 2).T
    for f in (lambda x: x.view(6) ** 2, lambda x: x.exp().view(3, 2)[1:]):
        torch.testing.assert_close(ag.jvp(f, (x,), (t,))[1], torch.func.jvp(f, (x,), (t,))[1])


def test_functions_without_a_derivative_give_zeros(x: Tensor):
    constant = torch.tensor(2.0, dtype=torch.float64)
    same(ag.grad(lambda x: constant)(x), torch.zeros_like(x))
    same(ag.jvp(lambda x: constant, (x,), (x,))[1], torch.zeros_like(constant))
    same(ag.jacrev(lambda x: x.detach())(x), torch.zeros(3, 3).double())
    with pytest.raises(RuntimeError, match="strict=True"):
        ag.jvp(lambda x: constant, (x,), (x,), strict=True)


def test_threads_have_levels_of_their_own(x: Tensor):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda k: ag.hessian(f)(x * k), range(1, 9)))
    for k, result in enumerate(results, 1):
        same(result, torch.func.hessian(f)(x * k))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ag.grad(vector)(x), RuntimeError, r"single number.*shape \(2,\)"),
        (lambda x: ag.grad(f, argnums=1)(x), ValueError, "argnums is 1, but there are 1"),
        (lambda x: ag.grad(f)(torch.arange(3)), TypeError, "floating-point"),
        (lambda x: ag.grad(f)(3.0), TypeError, "must be tensors, not float"),
        (lambda x: ag.jvp(f, x, x), TypeError, "primals must be a tuple"),
        (lambda x: ag.jvp(f, (x,), (x, x)), RuntimeError, "differ in structure"),
        (lambda x: ag.jvp(f, (x,), (x[:2],)), RuntimeError, r"tangent of shape \(2,\)"),
        (lambda x: ag.jvp(f, (x,), (x.float(),)), RuntimeError, "float32.*float64"),
        (lambda x: ag.vjp(vector, x)[1](x), RuntimeError, r"shape \(3,\).*shape \(2,\)"),
        (lambda x: ag.vjp(vector, x)[1]((x, x)), RuntimeError, "structure"),
    ],
)
def test_bad_input_is_named(call, error, message: str, x: Tensor):
    with pytest.raises(error, match=message):
        call(x)
