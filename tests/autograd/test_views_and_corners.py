"""Views that composite functions take, and values at which a rule is easily wrong: as torch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchopt_course import autograd as ag
from torchopt_course.autograd import Variable

from .agreement import Make, assert_as_in_torch

DATA = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(2, 2, 3)


def agree(program: Callable[..., Any], *inputs: Tensor) -> None:
    """Values and gradients are torch's, through variables and in record()."""
    truth = [x.clone().requires_grad_() for x in inputs]
    expected = program(*truth)
    expected.sum().backward()
    for kind in ("variables", "record"):
        if kind == "record":
            ours: list[Any] = [x.clone().requires_grad_() for x in inputs]
            with ag.record():
                result = program(*ours)
        else:
            ours = [Variable(x.clone()) for x in inputs]
            result = program(*ours)
        result.sum().backward()
        assert torch.equal(result.detach(), expected.detach()), kind
        for x, t in zip(ours, truth, strict=True):
            torch.testing.assert_close(x.grad, t.grad, equal_nan=True, msg=lambda text: f"{kind}: {text}")  # noqa: B023


VIEWS: dict[str, Callable[[Any], Any]] = {
    "tensor_split": lambda h: h.tensor_split(2, 1)[0],
    "hsplit": lambda h: torch.hsplit(h, 2)[1],
    "dsplit": lambda h: torch.dsplit(h, 3)[1],
    "atleast_2d": lambda h: torch.atleast_2d(h[0, 0]),
    "linalg.diagonal": torch.linalg.diagonal,
    "meshgrid": lambda h: torch.meshgrid(h[0, 0], h[0, 1], indexing="ij")[0][:, 0],
    "narrow by name": lambda h: h.narrow(dim=0, start=0, length=1),
    "as_strided by name": lambda h: torch.as_strided(input=h, size=(2, 2), stride=(6, 1), storage_offset=1),
    # These are copies, whatever is asked for.
    "repeat": lambda h: h.repeat(1, 1, 1),
    "tile": lambda h: h.tile(1),
}


@pytest.mark.parametrize("take", VIEWS.values(), ids=VIEWS)
def test_views_of_composite_functions_share_memory_and_past(take):
    def view_is_written(x: Any) -> Any:
        h = x * 2
        view = take(h)
        view.mul_(3)
        return (h * h).sum() + view.sum()

    def base_is_written(x: Any) -> Any:
        h = x * 2
        view = take(h)
        h.mul_(3)
        return (view * view).sum() + h.sum()

    agree(view_is_written, DATA)
    agree(base_is_written, DATA)


@pytest.mark.parametrize("take", [*list(VIEWS.values())[:8], lambda h: h[0], lambda h: h.mT])
@pytest.mark.parametrize(
    "use",
    [
        lambda h, view: view.mul_(3),
        lambda h, view: view.copy_(h.sum()),
        lambda h, view: view[:1].mul_(3),
        lambda h, view: h.mul_(view.sum()),
        lambda h, view: (view * h.sum()).sum().backward(retain_graph=True),
    ],
    ids=["write", "write a variable", "write to its view", "write to the base", "read"],
)
def test_a_view_taken_under_no_grad_is_as_torch_has_it(take, use):
    """It may not be written to afterwards, and no gradient goes through it."""
    results = []
    for x in (DATA.clone().requires_grad_(), Variable(DATA.clone())):
        h: Any = x * 2
        with torch.no_grad():
            view = take(h)
        try:
            use(h, view)
            (h.sum() + view.sum()).backward()
        except RuntimeError as error:
            results.append(["no_grad" in str(error)])
        else:
            results.append([x.grad, view.grad])
    torch.testing.assert_close(results[1], results[0])


def test_composites_that_write():
    agree(lambda x: (x * 2).fill_diagonal_(3.0) * x, DATA[0])
    agree(lambda x: (x * 2).add_(other=x, alpha=3).div_(other=x * x, rounding_mode=None), DATA)
    agree(lambda x: (x * 2).addcmul_(tensor1=x, tensor2=x, value=0.5), DATA)
    agree(lambda x: torch.matmul(input=x[0, 0], other=x[0].T) + x[0, 0].matmul(other=x[1].T), DATA)


def test_composites_that_write_into_what_they_have_made_are_refused():
    with pytest.raises(NotImplementedError, match="vander, which is made of"):
        torch.vander(Variable([1.0, 2.0, 3.0]))


def test_lists_that_are_written_to_are_refused_by_name():
    h = Variable([1.0]) * 2
    with pytest.raises(NotImplementedError, match=r"no derivative is known for torch\._foreach_mul_"):
        torch._foreach_mul_([h], 2.0)
    assert h.tolist() == [2.0]


def test_composites_of_a_variable_and_plain_tensors_that_require_a_gradient():
    """A step between the plain ones alone counts too."""
    plain, truth = (torch.eye(3).add(0.5).requires_grad_() for _ in range(2))
    ours, theirs = Variable(torch.eye(3)), torch.eye(3).requires_grad_()
    for h, p in ((ours, plain), (theirs, truth)):
        (torch.linalg.multi_dot([p, p, h]) + torch.addcmul(h, tensor1=p, tensor2=p)).sum().backward()
    torch.testing.assert_close(plain.grad, truth.grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_corners():
    zero, one = torch.zeros(4, dtype=torch.float64), torch.tensor([2.0, 0.5, 0.0, -1.0], dtype=torch.float64)
    agree(torch.xlogy, zero, one)
    agree(torch.special.xlog1py, zero, one)
    # Gamma with concentration 1: the derivative of x ** 0 by its exponent is ln x.
    agree(lambda k: torch.distributions.Gamma(k, 0.5).log_prob(torch.tensor(0.9)), torch.tensor(1.0))
    target = torch.zeros(3, dtype=torch.float64)
    infinite = torch.tensor([torch.inf, 0.0, 1.0], dtype=torch.float64)
    agree(lambda x: torch.logsumexp(x, 0), infinite)
    agree(lambda x: F.huber_loss(x, target, reduction="none", delta=0.5), infinite)
    agree(lambda x: F.smooth_l1_loss(x, target, reduction="none", beta=0.5), infinite)
    agree(torch.sgn, one)


@pytest.mark.parametrize("base", [0, -2, -2.5, 1, torch.inf, torch.nan])
def test_powers_of_a_number(base: float):
    exponents = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 2.0, 2.5, torch.nan], dtype=torch.float64)
    results = []
    for x in (Variable(exponents), exponents.clone().requires_grad_()):
        (base**x).backward(torch.ones_like(exponents))
        results.append(x.grad)
    torch.testing.assert_close(*results, equal_nan=True)


@pytest.mark.parametrize(("function", "dtype", "numbers"), [
    (F.celu, torch.float16, [6e4, -1.0]), (F.selu, torch.float16, [6e4, -1.0, 0.3]),
    (torch.norm, torch.float16, [1e-7]),
    (lambda x: torch.norm(x, torch.inf), torch.float64, [1.0, 0.5, 1.0, 1.0]),
])  # fmt: skip
def test_no_digits_are_lost(function: Any, dtype: torch.dtype, numbers: list[float]):
    results = []
    for make in (Variable, lambda x: x.requires_grad_()):
        x = make(torch.tensor(numbers, dtype=dtype))
        y = function(x) if function is not F.celu else function(x, 0.5)
        y.backward(torch.full_like(y.detach(), 0.7))
        results.append((y.detach(), x.grad))
    torch.testing.assert_close(*results, rtol=0, atol=1e-3 if dtype is torch.float16 else 1e-15)


def test_singular_values_of_a_matrix_without_full_rank():
    """The vectors have no derivative there, the largest value does."""
    agree(lambda x: torch.linalg.matrix_norm(x, 2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))


def test_the_gradient_of_eigenvectors_is_symmetric():
    """Else a matrix would not stay symmetric while it is trained."""
    matrix = torch.tensor([[2.0, 0.5, 0.1], [0.5, -1.0, 0.3], [0.1, 0.3, 0.2]], dtype=torch.float64)
    agree(lambda a: torch.linalg.eigh(a).eigenvectors * DATA[0, 0] + torch.linalg.eigvalsh(a), matrix)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_losses_by_atens_numbers_of_their_reduction(reduction):
    number = {"none": 0, "mean": 1, "sum": 2}[reduction]
    x, target = torch.tensor([0.2, 0.9]), torch.tensor([1.0, 0.0])
    agree(lambda x: torch.binary_cross_entropy_with_logits(x, target, None, None, number), x)
    for name in ("mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy"):
        ours: Any = Variable(x)
        result = getattr(torch._C._nn, name)(ours, target, reduction=number)
        torch.testing.assert_close(result.detach(), getattr(F, name)(x, target, reduction=reduction))


def test_a_function_whose_forward_pass_uses_torchs_graph():
    """As implicit layers do."""

    class Inner(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor) -> Tensor:
            with torch.enable_grad():
                ctx.a = a.detach().requires_grad_()
                ctx.result = ctx.a.sin() * ctx.a
            return ctx.result.detach()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            return torch.autograd.grad(ctx.result, ctx.a, g)[0]

    agree(lambda x: Inner.apply(x * 2) * x, DATA)


def test_who_asks_for_tensors_says_his_own_name():
    for transform in (ag.grad, ag.jacrev, ag.jacfwd):
        with pytest.raises(TypeError, match=rf"{transform.__name__}: .*pass torch.tensor"):
            transform(torch.sin)(2.0)


def a_view_of_a_view_gets_another_shape(make: Make) -> list[Any]:
    x = make(1.0, 2.0, 3.0)
    whole = torch.stack([x, 2 * x]).unsqueeze(0)
    rows = whole[0]
    row = rows.narrow(0, 1, 1).squeeze(0)
    row.unsqueeze_(0)
    row.t_()
    row.mul_(3)
    rows[0].add_(x)
    whole.mul_(2)
    (row * row + rows.sum() + whole.prod()).sum().backward()
    return [x.grad, row, rows, whole]


def test_a_view_that_gets_another_shape_leaves_the_others_theirs():
    assert_as_in_torch(a_view_of_a_view_gets_another_shape)


def test_a_view_of_what_got_another_shape_is_refused():
    h = ag.Variable([[1.0, 2.0], [3.0, 4.0]]) * 2
    row = h[1]
    number = row[0]
    row.unsqueeze_(1)
    h.mul_(2)
    with pytest.raises(RuntimeError, match="got another shape"):
        number.node  # noqa: B018


@pytest.mark.parametrize("form", ["cholesky", "inv", "solve"])
def test_matrices_that_cannot_be_taken_apart(form: str):
    """Only who asks for a look is told by an error; ``..._ex`` says so beside its result."""
    more = (torch.eye(2, dtype=torch.float64),) if form == "solve" else ()
    matrix = ag.Variable(torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)) * 1
    if form == "cholesky":
        matrix = matrix - 3 * torch.eye(2, dtype=torch.float64)
    mine, theirs = (getattr(torch.linalg, f"{form}_ex")(a, *more) for a in (matrix, matrix.detach()))
    assert mine.info == theirs.info > 0
    torch.testing.assert_close(mine[0].detach(), theirs[0], equal_nan=True)
    with pytest.raises(torch.linalg.LinAlgError):
        getattr(torch.linalg, form)(matrix, *more)
    with pytest.raises(torch.linalg.LinAlgError):
        getattr(torch.linalg, f"{form}_ex")(matrix, *more, check_errors=True)


def test_a_determinant_of_zero():
    matrix = ag.Variable(torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64))
    torch.linalg.det(matrix).backward()
    torch.testing.assert_close(matrix.grad, torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=torch.float64))
