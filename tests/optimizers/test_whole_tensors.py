"""A rule for whole tensors against plain code: any states, checkpoints, errors changing nothing."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import TensorOptimizer
from torchopt_course.testing import assert_optimizer_agrees

from ..helpers import ROOT

STEPS = 60


def power(matrix: Any, exponent: float) -> Any:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.unsqueeze(-2) ** exponent @ vectors.mT


class Shampoo(TensorOptimizer):
    """Gupta et al., 2018; the steps are counted in an integer, the largest gradient is kept as one number."""

    states = ("left", "right", "largest", "count")

    def __init__(self, params: Any, lr: float = 0.1, eps: float = 1e-4, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, **options})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        if name == "count":
            return torch.zeros((), dtype=torch.int64)
        if name == "largest":
            return torch.zeros(1, dtype=torch.float32)
        if param.dim() < 2:
            return None
        size = param.shape[0 if name == "left" else 1]
        return group["eps"] * torch.eye(size, dtype=torch.float64)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, left: Any, right: Any, largest: Any, count: Any, lr: Any) -> Any:
        count += 1  # what it gets is its own
        largest = torch.maximum(largest, g.abs().max())
        if left is None:
            return p - lr * g, None, None, largest, count
        gradient = g.double()
        left += gradient @ gradient.mT
        right += gradient.mT @ gradient
        update = power(left, -1 / 4) @ gradient @ power(right, -1 / 4)
        return p - lr * update.to(p.dtype), left, right, largest, count


def shampoo_by_hand(
    values: list[Tensor], gradients: Callable[[int, Tensor], Tensor], lr: float
) -> list[Tensor]:
    """The same without any of our classes; powers by singular values instead of eigenvalues."""

    def root(matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix)
        return u @ torch.diag(s**-0.25) @ vh

    end = []
    for value in values:
        w = value.clone()
        if w.dim() == 2:
            left, right = 1e-4 * torch.eye(len(w)).to(w), 1e-4 * torch.eye(w.shape[1]).to(w)
        for step in range(STEPS):
            g = gradients(step, w)
            if w.dim() < 2:
                w -= lr * g
                continue
            left += g @ g.T
            right += g.T @ g
            w -= lr * root(left) @ g @ root(right)
        end.append(w)
    return end


def parameters(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), (4, 3), (2, 6)]
    return [
        Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def gradient(step: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + like.numel())
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)


def run(optimizer: torch.optim.Optimizer, steps: range, sign: float = 1.0) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = sign * gradient(step, param)
        optimizer.step()


def test_shampoo_is_what_plain_code_says() -> None:
    params = parameters()
    expected = shampoo_by_hand([p.detach().clone() for p in params], gradient, 0.1)
    optimizer = Shampoo(params)
    run(optimizer, range(STEPS))
    for param, value in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), value, rtol=1e-9, atol=1e-9)
    state = optimizer.state[params[1]]
    assert sorted(state) == ["count", "largest"], "a state that is None is not kept"
    assert (state["count"].item(), state["count"].dtype) == (STEPS, torch.int64)
    assert state["largest"].item() == max(gradient(i, params[1]).abs().max() for i in range(STEPS)).float()
    assert optimizer.engine_report() == "torch, whole tensors: 4 parameters, 41 elements"


def test_passes_the_kit() -> None:
    class Normalized(TensorOptimizer):
        """The gradient's direction, and how often it was there."""

        states = ("norms", "n")

        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})

        def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
            return param.new_zeros((), dtype=torch.int32 if name == "n" else None)

        @staticmethod
        def coefficients(lr: Any, step: Any) -> Any:
            return {"lr": lr, "step": step}

        @staticmethod
        def rule(p: Any, g: Any, norms: Any, n: Any, lr: Any, step: Any) -> Any:
            assert n == step - 1
            return p - lr * g / (g.norm() + 1e-3), norms + g.norm(), n + 1

    assert_optimizer_agrees(Normalized, fused=False, steps=4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_checkpoint_copies_and_pickles_go_on(dtype: torch.dtype) -> None:
    """torch would bring all floating states to the parameter's dtype, bfloat16."""
    params = parameters(dtype)
    optimizer = Shampoo(params)
    run(optimizer, range(3))
    twins = [Parameter(p.detach().clone()) for p in params]
    loaded = Shampoo(twins)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert loaded.state[twins[0]]["left"].dtype == torch.float64
    assert loaded.state[twins[0]]["largest"].dtype == torch.float32
    assert loaded.state[twins[0]]["count"].dtype == torch.int64
    others = [loaded, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    for each in (optimizer, *others):
        run(each, range(3, 6))
    for other in others:
        for param, twin in zip(params, other.param_groups[0]["params"], strict=True):
            assert torch.equal(param, twin)
            for name, state in optimizer.state[param].items():
                assert torch.equal(state, other.state[twin][name]), name


def test_checkpoint_in_another_precision_is_loaded_into_that_which_states_begin_with() -> None:
    saved = Shampoo(parameters())
    run(saved, range(2))
    checkpoint = copy.deepcopy(saved.state_dict())
    for entry in checkpoint["state"].values():
        entry["largest"] = entry["largest"].double()
    params = parameters(torch.bfloat16)
    loaded = Shampoo(params)
    loaded.load_state_dict(checkpoint)
    assert loaded.state[params[0]]["largest"].dtype == torch.float32
    assert torch.equal(
        loaded.state[params[0]]["left"], saved.state[saved.param_groups[0]["params"][0]]["left"]
    )


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (lambda entry: entry.pop("left"), KeyError, "parameter 0 of group 0 has no 'left'"),
        (
            lambda entry: entry.update(left=torch.eye(3)),
            ValueError,
            r"'left'.*shape \(3, 3\), expected \(4, 4\)",
        ),
        (
            lambda entry: entry.update(count=torch.tensor(1.5)),
            ValueError,
            "'count'.*float32.*cannot become torch.int64",
        ),
        (lambda entry: entry.update(left=3.0), TypeError, "'left'.*must be a tensor, got float"),
    ],
)
def test_bad_checkpoints_are_refused_and_change_nothing(
    edit: Any, error: type[Exception], match: str
) -> None:
    optimizer = Shampoo(parameters())
    run(optimizer, range(2))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    edit(checkpoint["state"][0])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(error, match=match):
        optimizer.load_state_dict(checkpoint)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_a_vector_with_a_state_of_matrices_is_refused() -> None:
    optimizer = Shampoo(parameters())
    run(optimizer, range(2))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    checkpoint["state"][1]["left"] = torch.eye(5)
    with pytest.raises(ValueError, match=r"'left' of parameter 1.*\(5,\) keeps no such state"):
        optimizer.load_state_dict(checkpoint)


def test_maximize_closures_schedules_and_late_gradients() -> None:
    up, down = Shampoo(parameters(), maximize=True), Shampoo(parameters())
    run(up, range(5), sign=-1.0)
    run(down, range(5))
    for a, b in zip(up.param_groups[0]["params"], down.param_groups[0]["params"], strict=True):
        assert torch.equal(a, b)

    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = Shampoo(params)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (params[1] ** 2).sum()  # the others have no gradient
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    torch.testing.assert_close(loss, (before[1] ** 2).sum())
    torch.testing.assert_close(params[1].detach(), 0.8 * before[1])
    assert [*optimizer.state] == [params[1]]
    schedule.step()
    optimizer.step(closure)
    torch.testing.assert_close(params[1].detach(), 0.8 * before[1])
    run(optimizer, range(1))
    assert [optimizer.state[p]["count"].item() for p in params] == [1, 3, 1, 1]


class Given(TensorOptimizer):
    """A rule and a first state from outside."""

    states = ("m",)
    given: Any = None
    first: Any = None

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, {"lr": 0.1, **options})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Any:
        return type(self).first(param)

    @staticmethod
    def coefficients(lr: Any) -> Any:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, lr: Any) -> Any:
        return Given.given(p, g, m)


def refuses(
    monkeypatch: pytest.MonkeyPatch,
    first: Any,
    given: Any,
    error: type[Exception],
    match: str,
    stacked: bool = False,
) -> None:
    """A step raises, names the second parameter, and changes nothing."""
    monkeypatch.setattr(Given, "first", staticmethod(first))
    monkeypatch.setattr(Given, "given", staticmethod(given))
    monkeypatch.setattr(Given, "stacked", stacked)
    params = [Parameter(torch.ones(2)), Parameter(torch.ones(3))]
    optimizer = Given([("a", params[0]), ("b", params[1])])
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(error, match=match) as raised:
        optimizer.step()
    assert "parameter 1 of group 0 (b)" in str(raised.value)
    assert all(torch.equal(param, torch.ones_like(param)) for param in params)
    assert all(torch.equal(param.grad, torch.ones_like(param)) for param in params)
    assert not optimizer.state


def odd(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda param: make(param) if len(param) == 3 else torch.zeros(2)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda p: 0.0,
            TypeError,
            "'m' that Given.initial_state made.*is a float, 0.0, expected a tensor, or None",
        ),
        (lambda p: torch.zeros(3, device="meta"), RuntimeError, "is on meta, expected cpu"),
        (lambda p: p, RuntimeError, "requires a gradient"),
        (lambda p: p.detach(), RuntimeError, "is the parameter itself"),
        (lambda p: torch.zeros(()).expand(3), RuntimeError, "several elements in one memory location"),
        (lambda p: torch.zeros(3).to_sparse(), RuntimeError, "layout torch.sparse_coo"),
        (lambda p: p @ torch.ones(7), RuntimeError, r"Given.initial_state\('m'\)"),
    ],
)
def test_bad_initial_states(
    monkeypatch: pytest.MonkeyPatch, make: Any, error: type[Exception], match: str
) -> None:
    refuses(monkeypatch, odd(make), lambda p, g, m: (p, m), error, match)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    ("result", "error", "match"),
    [
        (lambda p, m: (p @ torch.ones(7), m), RuntimeError, "Given.rule"),
        (lambda p, m: (p.sum(), m), TypeError, "new 'p' of shape"),
        (lambda p, m: (p, None), TypeError, "returned None for 'm'"),
        (lambda p, m: (p, m.to(torch.complex64)), TypeError, "'m' of torch.complex64, which cannot become"),
        (lambda p, m: p, TypeError, "returned one value"),
        (lambda p, m: (p, "m"), TypeError, "a str, 'm' for 'm'"),
    ],
)
def test_bad_results(
    monkeypatch: pytest.MonkeyPatch, result: Any, error: type[Exception], match: str, stacked: bool
) -> None:
    def given(p: Any, g: Any, m: Any) -> Any:
        g.zero_()  # what it gets is its own
        return result(p, m) if p.shape[-1] == 3 else (p.mul_(0), m.add_(1))

    refuses(monkeypatch, lambda p: torch.zeros(len(p)), given, error, match, stacked)


def test_none_must_stay_none(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(
        monkeypatch, odd(lambda p: None), lambda p, g, m: (p, 0 * g), TypeError, "for 'm', which was None"
    )


def test_what_the_rule_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Given cannot take parameter 1 of group 0: it is complex"):
        Given([Parameter(torch.ones(2)), Parameter(torch.ones(2, dtype=torch.complex64))])
    for engine in ("fused", "foreach"):
        with pytest.raises(RuntimeError, match=f"Given has no {engine} engine"):
            Given([Parameter(torch.ones(2))], **{engine: True})
    param = Parameter(torch.ones(2))
    param.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match=r"does not support sparse gradients.*parameter 0 of group 0"):
        Given([param]).step()


def test_add_param_group_takes_back_what_it_refuses() -> None:
    optimizer = Shampoo(parameters())
    with pytest.raises(ValueError, match="parameter 0 of group 1: it is complex"):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 1


class Whitened(TensorOptimizer):
    """G (GᵀG + 1)^(-1/2) of a momentum, all matrices of one shape in one batched decomposition."""

    states = ("m", "seen")
    stacked = True
    calls: list[tuple[int, ...]] = []

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def initial_state(self, name: str, param: Tensor, group: Mapping[str, Any]) -> Tensor:
        return torch.zeros((), dtype=torch.int64) if name == "seen" else torch.zeros_like(param).detach()

    @staticmethod
    def coefficients(lr: Any, step: Any) -> Any:
        return {"lr": lr, "damped": lr / step}

    @staticmethod
    def rule(p: Any, g: Any, m: Any, seen: Any, lr: Any, damped: Any) -> Any:
        Whitened.calls.append(tuple(p.shape))
        m.lerp_(g, 0.1)
        gram = m.mT @ m + torch.eye(m.shape[-1]).to(m)
        return p - damped * m @ power(gram, -1 / 2), m, seen + 1


def test_parameters_of_one_shape_are_stacked() -> None:
    shapes = [(4, 3), (2, 5), (4, 3), (4, 3)]
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]
    by_hand = [p.detach().clone() for p in params]
    optimizer = Whitened(params)
    moments = [torch.zeros_like(p) for p in by_hand]
    counts = [0] * 4
    for step in range(STEPS):
        Whitened.calls.clear()
        for i, (param, w) in enumerate(zip(params, by_hand, strict=True)):
            param.grad = None if (i, step) == (2, 1) else gradient(step, param)
            if param.grad is None:
                continue
            counts[i] += 1
            moments[i] = 0.9 * moments[i] + 0.1 * param.grad
            u, s, vh = torch.linalg.svd(moments[i], full_matrices=False)
            w -= 0.1 / counts[i] * u @ torch.diag(s / (s**2 + 1) ** 0.5) @ vh
        optimizer.step()
        # One step behind, it has coefficients of its own.
        together = [(3, 4, 3), (1, 2, 5)] if step == 0 else [(2, 4, 3), (1, 2, 5)] + [(1, 4, 3)] * (step > 1)
        assert Whitened.calls == together
    for param, w in zip(params, by_hand, strict=True):
        torch.testing.assert_close(param.detach(), w, rtol=1e-9, atol=1e-9)
    assert [optimizer.state[p]["seen"].item() for p in params] == counts


def test_stacked_results_must_be_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses(
        monkeypatch,
        lambda p: torch.zeros(len(p)),
        lambda p, g, m: (p[0] if p.shape[-1] == 3 else p, m),
        TypeError,
        "expected 1 of them along the first dimension",
        stacked=True,
    )


def test_differentiable() -> None:
    weight = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    param = weight.clone()
    optimizer = Shampoo([weight], differentiable=True)
    optimizer.param_groups[0]["params"] = [param]
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    optimizer.param_groups[0]["lr"] = rate
    param.grad = gradient(0, param)
    optimizer.step()
    param.sum().backward()
    (by_rate,) = torch.autograd.grad(-(weight.detach() - param.detach()).sum() / 0.1 * rate, rate)
    torch.testing.assert_close(rate.grad, by_rate)


def test_shared_memory_is_stepped_one_after_the_other() -> None:
    both = torch.ones(2, 3, dtype=torch.float64)
    first, second = Parameter(both), Parameter(both[0])
    optimizer = Shampoo([second, first], lr=0.1)
    second.grad, first.grad = torch.ones(3).double(), torch.zeros(2, 3).double()
    optimizer.step()
    torch.testing.assert_close(both, torch.tensor([[0.9] * 3, [1.0] * 3], dtype=torch.float64))


def test_the_documentation_runs() -> None:
    text = (ROOT / "docs" / "what_a_rule_sees.md").read_text(encoding="utf-8")
    section = text.split("## Whole tensors")[1].split("\n## ")[0]
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    params = parameters()[:1]
    expected = shampoo_by_hand([p.detach().clone() for p in params], gradient, 0.1)
    run(names["Shampoo"](params), range(STEPS))
    torch.testing.assert_close(params[0].detach(), expected[0], rtol=1e-9, atol=1e-9)
    groups = names["optimizer"].param_groups
    assert [(group["optimizer"], len(group["params"])) for group in groups] == [("Shampoo", 1), ("AdamW", 3)]
