"""Numbers over several tensors, ``over="group"`` and ``"all"``: alike on every engine, never of a part."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch as xp
from hypothesis import given, settings
from torch import Tensor
from torch.nn import Parameter

from torchopt_course import Adam, ElementwiseOptimizer, Mixed, TensorOptimizer
from torchopt_course.engines.cpu.reductions import BLOCK
from torchopt_course.engines.rule.namespace import XP

from .formulas import formulas, rule_of
from .test_reductions import ENGINES, engine, interpret_cuda, normal, optimizer_of, threads

__all__ = ["engine", "threads"]  # fixtures


class ClippedAdam(ElementwiseOptimizer):
    """Adam with gradients clipped by their norm over all tensors (or over the group)."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Any, lr: float = 0.1, max_norm: float = 1.0, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "max_norm": max_norm, "of_group": False, **options})

    @staticmethod
    def coefficients(step: Any, lr: Any, max_norm: Any, of_group: Any) -> Any:
        return {
            "lr": lr / (1 - 0.9**step),
            "unbias": (1 - 0.999**step) ** -0.5,
            "max_norm": max_norm,
            "of_group": bool(of_group),
        }

    @staticmethod
    def rule(
        p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any, max_norm: Any, of_group: Any
    ) -> Any:
        norm = xp.norm(g, over="group" if of_group else "all")
        g = g * xp.clamp(max_norm / (norm + 1e-6), max=1.0)
        exp_avg = 0.9 * exp_avg + 0.1 * g
        exp_avg_sq = 0.999 * exp_avg_sq + 0.001 * g * g
        return p - lr * exp_avg / (unbias * xp.sqrt(exp_avg_sq) + 1e-8), exp_avg, exp_avg_sq


SHAPES = [(3,), (), (2, BLOCK + 77), (5, 7), (0,), (1, 4)]


def parameters(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    return [Parameter(normal(shape, i, dtype)) for i, shape in enumerate(SHAPES)]


def set_gradients(params: Sequence[Parameter], step: int) -> None:
    """Large ones and small ones; some have none in some steps."""
    for i, param in enumerate(params):
        scale = 10.0 ** ((step % 3) - 2)
        param.grad = (
            None if (i + step) % 5 == 0 else scale * normal(tuple(param.shape), 10 * step + i, param.dtype)
        )


def in_two_groups(params: Sequence[Parameter]) -> list[dict[str, Any]]:
    return [{"params": [*params[:2]], "lr": 0.2}, {"params": [*params[2:]]}]


@pytest.mark.parametrize("of_group", [False, True])
def test_clipping_by_a_global_norm_is_torchs(engine: str, of_group: bool) -> None:
    mine, theirs = parameters(), parameters()
    ours = ClippedAdam(in_two_groups(mine), of_group=of_group, **ENGINES[engine])
    reference = torch.optim.Adam(in_two_groups(theirs), lr=0.1, foreach=False)
    for step in range(6):
        for params in (mine, theirs):
            set_gradients(params, step)
        ours.step()
        for group in reference.param_groups if of_group else [{"params": theirs}]:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0, foreach=False)
        reference.step()
        assert all(line.startswith((engine, "no engine")) for line in ours.engine_report().splitlines())
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


# -- an independent truth: all tensors at once, each in a thread that waits where a number is of several ----


class _Together:
    """``xp`` for the threads of all tensors: a reduction over several waits for the others."""

    def __init__(self, groups: Sequence[int]) -> None:
        self.barrier = threading.Barrier(len(groups))
        self.groups = groups
        self.slots: list[Any] = [None] * len(groups)

    def of(self, mine: int) -> Any:
        names = {name: getattr(torch, name) for name in dir(torch) if not name.startswith("__")}
        for name in ("sum", "mean", "norm", "max", "min", "any", "all", "count_nonzero"):
            names[name] = self._reduction(getattr(torch, name), mine)
        names["rms"] = lambda x, over: torch.sqrt(names["mean"](x * x, over=over))
        names["dot"] = lambda x, y, over: names["sum"](x * y, over=over)
        return SimpleNamespace(**names)

    def _reduction(self, function: Callable[..., Any], mine: int) -> Callable[..., Any]:
        def reduce(x: Tensor, over: str = "tensor") -> Any:
            if over == "tensor":  # torch has no extremes of nothing, for which no element asks either
                nothing = {torch.max: -math.inf, torch.min: math.inf}
                return (
                    function(x) if x.numel() or function not in nothing else torch.tensor(nothing[function])
                )
            self.slots[mine] = x
            self.barrier.wait()
            own = self.groups[mine]
            several = [
                each.flatten()
                for each, group in zip(self.slots, self.groups, strict=True)
                if over == "all" or group == own
            ]
            self.barrier.wait()
            return function(torch.cat(several))

        return reduce


def in_lockstep(
    rule: Callable[..., Any], tensors: Sequence[tuple[Tensor, ...]], groups: Sequence[int]
) -> list[Any]:
    """The rule of all tensors, each in a thread of its own."""
    together, results, errors = _Together(groups), [None] * len(tensors), []

    def run(i: int) -> None:
        try:
            function = type(rule)(rule.__code__, {**rule.__globals__, "xp": together.of(i)})
            results[i] = function(*tensors[i], 0.25)
        except Exception as error:
            errors.append(error)
            together.barrier.abort()

    running = [threading.Thread(target=run, args=(i,)) for i in range(len(tensors))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return results


GROUPS = [0, 0, 1, 1, 1, 1]
SPELLINGS = (
    *(f'xp.{name}(g, over="all")' for name in ("sum", "mean", "norm", "max", "min", "count_nonzero", "rms")),
    *('xp.any(g > 2.5, over="group")', 'xp.all(g > -9, over="all")', 'xp.dot(g, p, over="group")'),
    *('xp.sum(g > 0.5, over="group")', 'xp.max(0 * g + xp.norm(g), over="all")'),
    'xp.norm(g / xp.norm(g, over="all"), over="group") * xp.norm(g) - xp.mean(g)',
    'xp.clamp(xp.sum(g, over="all"), min=3.0) + xp.minimum(xp.norm(g), xp.norm(g, over="all"))',
    'xp.where(xp.isfinite(xp.sum(g, over="all")) & (xp.max(g) > 0), 0.3, 0.7)',
    'xp.where(xp.norm(g) > 1, xp.norm(g, over="all"), xp.norm(g, over="group"))',
    'xp.where(xp.norm(g, over="all") > 1, xp.norm(g), 0.5) + xp.sqrt(xp.abs(xp.sum(g, over="all")))',
    'xp.norm(xp.where(g > 0, xp.max(g, over="all"), lr), over="all")',
)


def stepping(
    rule: Callable[..., Any], engine: str, steps: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[list[Any], str]:
    """Parameters and states after some steps, with the report."""
    params = parameters(dtype)
    groups = [{"params": [p for p, i in zip(params, GROUPS, strict=True) if i == k]} for k in (0, 1)]
    optimizer = optimizer_of(rule, groups, ("m",), **ENGINES[engine])
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = normal(SHAPES[i], 10 + i + step, dtype)
        optimizer.step()
    values = [value for p in params for value in (p.detach(), optimizer.state[p]["m"])]
    return values, optimizer.engine_report()


def expected(rule: Callable[..., Any], steps: int = 2) -> list[Any]:
    torch.set_default_dtype(torch.float64)  # of numbers as tensors
    values = [(normal(shape, i), torch.zeros(shape, dtype=torch.float64)) for i, shape in enumerate(SHAPES)]
    for step in range(steps):
        given = [(p, normal(SHAPES[i], 10 + i + step), m) for i, (p, m) in enumerate(values)]
        values = in_lockstep(rule, given, GROUPS)
    torch.set_default_dtype(torch.float32)
    return [value for each in values for value in each]


@pytest.mark.parametrize("start", [0, 6, 12])
def test_each_number_is_that_of_all_tensors_together(engine: str, start: int) -> None:
    """Several in one rule: a state is full of their sum, so that one that is wrong is seen."""
    terms = [f"{0.5 + k} * ({text})" for k, text in enumerate(SPELLINGS[start : start + 6])]
    rule = rule_of(("p - lr * g", f"0 * m + {' + '.join(terms)}"))
    values, report = stepping(rule, engine)
    assert report.startswith(engine), report
    torch.testing.assert_close(values, expected(rule), rtol=1e-11, atol=1e-11)


AMONG_ELEMENTS = (
    'xp.where(xp.isfinite(xp.norm(g, over="all")), m + g, m)',
    'xp.where(xp.norm(g, over="all") > 1e9, m, 0.25)',
    'xp.where((g > 0) & (xp.norm(g, over="all") > 1), xp.sum(g, over="all"), 2.0)',
    '(xp.maximum(xp.mean(g, over="all"), g) - xp.minimum(g, xp.mean(g, over="group")))',
    'xp.where(g > 0, xp.max(g, over="all"), xp.min(g, over="group"))',
    '(m + xp.norm(g, over="all"))',
    '(0 * m + xp.any(g > 2, over="all"))',
)


def test_elements_meet_numbers_of_several_tensors(engine: str) -> None:
    rule = rule_of(("p - lr * g", " + ".join(f"{0.5 + k} * {text}" for k, text in enumerate(AMONG_ELEMENTS))))
    values, report = stepping(rule, engine)
    assert report.startswith(engine), report
    torch.testing.assert_close(values, expected(rule), rtol=1e-11, atol=1e-11)


# -- formulas by lot --------------------------------------------------------------------------------------


_OVER = (', over="all"', ', over="group"', "")
_REDUCTIONS = tuple(
    f"xp.{name}({{}}{over})"
    for name in ("sum", "mean", "norm", "max", "min", "count_nonzero")
    for over in _OVER
) + tuple(f"(0.5 * xp.any({{}} > lr{over}))" for over in _OVER)


@settings(max_examples=3, deadline=None, derandomize=True)
@given(formulas(_REDUCTIONS))
def test_every_engine_computes_what_torch_does(formula: tuple[str, str]) -> None:
    rule = rule_of(formula)
    truth = expected(rule)
    for name in ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            if name == "fused CUDA engine":
                interpret_cuda(patch)
            values, report = stepping(rule, name)
        assert report.startswith(name), report
        torch.testing.assert_close(values, truth, rtol=1e-9, atol=1e-11)


# -- what a step is ------------------------------------------------------------------------------------------


def clipped(p: Any, g: Any, m: Any, lr: Any) -> Any:
    return p - lr * g / g.norm(over="all"), m


def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(engine: str) -> None:
    rule = rule_of(
        (
            'xp.where(xp.isfinite(xp.sum(g, over="all")), p - lr * g, p)',
            'xp.where(xp.isfinite(xp.sum(g, over="all")), m + g, m)',
        )
    )
    params = parameters()
    optimizer = optimizer_of(rule, params, ("m",), **ENGINES[engine])
    for odd in (1.0, math.nan, math.inf):
        before = [param.detach().clone() for param in params]
        for param in params:
            param.grad = torch.ones_like(param)
        params[2].grad[1, 5] = odd  # type: ignore[index]
        optimizer.step()
        for param, old in zip(params, before, strict=True):
            assert torch.equal(param, old - 0.25 if odd == 1 else old)
            assert torch.equal(optimizer.state[param]["m"], torch.ones_like(param))


def test_one_number_of_tensors_on_different_engines() -> None:
    """Each group another engine, and 16 bits beside 64: the number is of all of them."""
    params = [
        Parameter(normal((50,), i, dtype)) for i, dtype in enumerate([torch.float64, torch.float32] * 2)
    ]
    params += [Parameter(torch.zeros(40, dtype=torch.bfloat16)) for _ in range(2)]
    groups = [
        {"params": params[:1], "fused": True},
        {"params": [params[1], params[5]], "foreach": True},
        {"params": params[2:3], "fused": False},
        {"params": params[3:5], "fused": None},
    ]
    optimizer = optimizer_of(clipped, groups, ("m",))
    before = [param.detach().clone().double() for param in params]
    for i, param in enumerate(params):
        param.grad = torch.full_like(param, i + 1.0)
    optimizer.step()
    report = optimizer.engine_report()
    assert all(name in report for name in ("fused CPU", "foreach", "eager")), report
    norm = math.sqrt(sum(param.numel() * (i + 1.0) ** 2 for i, param in enumerate(params)))
    for i, (param, old) in enumerate(zip(params, before, strict=True)):
        tolerance = max(1e-7, 4 * torch.finfo(param.dtype).eps)
        torch.testing.assert_close(
            param.detach().double(), old - 0.25 * (i + 1) / norm, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_on_every_number_of_threads(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    runs = []
    for count in (1, 2, 3):
        threads(count)
        params = [
            Parameter(normal(shape, i, dtype)) for i, shape in enumerate([(3 * BLOCK + 5,), (40, 1000)])
        ]
        optimizer = optimizer_of(clipped, params, ("m",), fused=True)
        for step in range(2):
            for i, param in enumerate(params):
                param.grad = normal(tuple(param.shape), 10 + i + step, dtype)
            optimizer.step()
        runs.append([param.detach() for param in params])
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_numbers_of_16_bits_are_summed_in_more(engine: str, rounding: str) -> None:
    """A million small numbers: in 16 bits their norm would be lost."""
    params = [Parameter(torch.zeros(1 << 15, dtype=torch.bfloat16)) for _ in range(2)]
    options = {**ENGINES[engine], "rounding": rounding}
    optimizer = optimizer_of(
        rule_of(('p - lr * xp.norm(g, over="all")', "m + xp.sum(g, over='all')")), params, ("m",), **options
    )
    for param in params:
        param.grad = torch.full_like(param, 2.0**-8)
    optimizer.step()
    for param in params:
        torch.testing.assert_close(
            param.detach().double(), torch.full_like(param, -0.25).double(), rtol=1e-2, atol=0
        )
        torch.testing.assert_close(
            optimizer.state[param]["m"].double(), torch.full_like(param, 256.0).double(), rtol=1e-2, atol=0
        )


def test_gradients_flow_through_a_number_of_several_tensors() -> None:
    def after(lr: Tensor, grads: list[Tensor]) -> Tensor:
        params = [Parameter(torch.zeros(3, dtype=torch.float64)) for _ in grads]
        clones = [param.clone() for param in params]
        optimizer = optimizer_of(clipped, params, ("m",), differentiable=True, lr=lr)
        optimizer.param_groups[0]["params"] = clones
        for clone, grad in zip(clones, grads, strict=True):
            clone.grad = grad
        optimizer.step()
        return sum(clone.exp().sum() for clone in clones)  # type: ignore[return-value]

    lr = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    grads = [normal((3,), i).requires_grad_() for i in range(2)]
    mine = torch.autograd.grad(after(lr, grads), [lr, *grads])
    norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))  # type: ignore[arg-type]
    loss = sum((-lr * g / norm).exp().sum() for g in grads)
    for a, b in zip(mine, torch.autograd.grad(loss, [lr, *grads]), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(a, b)


def test_grad_scaler_unscales_before_anything_is_reduced(engine: str) -> None:
    params = [Parameter(normal((50,), i)) for i in range(2)]
    before = [param.detach().clone() for param in params]
    optimizer = optimizer_of(clipped, params, ("m",), **ENGINES[engine])
    optimizer.grad_scale = torch.tensor(64.0)  # type: ignore[attr-defined]
    for found in (1.0, 0.0):
        optimizer.found_inf = torch.tensor(found)  # type: ignore[attr-defined]
        for i, param in enumerate(params):
            param.grad = 64 * torch.full_like(param, i + 1.0)
        optimizer.step()
        for i, (param, old) in enumerate(zip(params, before, strict=True)):
            moved = 0.0 if found else 0.25 * (i + 1) / math.sqrt(250)
            torch.testing.assert_close(param.detach(), old - moved)


def test_each_route_of_mixed_has_numbers_of_its_own() -> None:
    params = [Parameter(torch.zeros(4)) for _ in range(3)]
    routes = [(lambda name, p: p is params[0], Adam, {}), (None, ClippedAdam, {"lr": 0.5, "max_norm": 2.0})]
    optimizer = Mixed(params, routes)
    others = [Parameter(torch.zeros(4)) for _ in range(2)]
    alone = ClippedAdam(others, lr=0.5, max_norm=2.0)
    for i, param in enumerate((*params, *others)):
        param.grad = torch.full_like(param, 1.0 + (i - 1) % 2)
    optimizer.step()
    alone.step()
    for a, b in zip(params[1:], others, strict=True):
        assert torch.equal(a, b)


def test_a_rule_that_begins_to_see_several_tensors_in_a_later_step(engine: str) -> None:
    class Later(ClippedAdam):
        @staticmethod
        def coefficients(step: Any, lr: Any, max_norm: Any, of_group: Any) -> Any:
            return {**ClippedAdam.coefficients(step, lr, max_norm, of_group), "is_late": step > 1}

        @staticmethod
        def rule(  # type: ignore[override]
            p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any, max_norm: Any, of_group: Any,
            is_late: Any,
        ) -> Any:  # fmt: skip
            return p - lr * (g / xp.norm(g, over="all") if is_late else g), exp_avg, exp_avg_sq

    params = [Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    options = {name: value for name, value in ENGINES[engine].items() if "CUDA" not in engine}
    optimizer = Later(params, **options)
    moved = 0.0
    for step in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        lr = 0.1 / (1 - 0.9 ** (step + 1))
        moved += lr if step == 0 else lr / 2
        torch.testing.assert_close(params[0].detach(), torch.full_like(params[0], -moved))


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('p - xp.norm(g, over="grup") * g', r"norm\(\) with over='grup', expected .* 'group', 'all'"),
        ("p - xp.mean(g, over=1) * g", r"mean\(\) with over=1"),
        ('p - xp.mean(g, dim=0, over="all") * g', r"mean\(\) with over='all'"),
        ('p - g.abs(over="all")', r"abs\(\) with over='all'"),
        ('p - xp.sum(xp.norm(g), over="all") * g', r"sum\(over='all'\) of what is one number"),
        ('p - g / xp.norm(g, over="all") if xp.norm(g, over="all") > 1 else p', r"over='all'.*xp\.where"),
        ('p - xp.special.erf(g) / xp.norm(g, over="all")', r"over='all'.*special.*erf"),
        ('p / xp.norm(g, over="group") - xp.cumsum(g, 0)', r"over='group'.*cumsum"),
        ('xp.norm(g, over="all")', r"returned one number of a whole tensor, expected tensors"),
    ],
)  # fmt: skip
def test_mistakes_are_named_at_construction(text: str, words: str) -> None:
    rule = rule_of((text, "m"))
    with pytest.raises(TypeError, match=f"User.rule .*{words}"):
        optimizer_of(rule, parameters(), ("m",))


def test_a_rule_that_was_left_to_torch_before_it_asked_says_so_in_the_step() -> None:
    params = parameters()
    rule = rule_of(('p - xp.cumsum(g, 0) / xp.norm(g, over="group")', "m"))
    optimizer = optimizer_of(rule, params, ("m",))
    set_gradients(params, 1)
    with pytest.raises(TypeError, match=r"norm\(over='group'\) was called with one tensor.*list for kernels"):
        optimizer.step()


def test_a_rule_of_whole_tensors_has_no_numbers_of_several() -> None:
    class Wants(TensorOptimizer):
        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr}

        @staticmethod
        def rule(p: Any, g: Any, lr: Any) -> Any:
            return p - lr * g / xp.norm(g, over="all")

    param = Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    words = r"Wants\.rule\(lr=0\.1\), in .*: norm\(\) got .* keyword argument 'over'"
    with pytest.raises(TypeError, match=words):
        Wants([param], {"lr": 0.1}).step()
    assert torch.equal(param, torch.ones(3))


def test_parameters_that_are_stepped_one_after_the_other_are_refused() -> None:
    whole = torch.zeros(4)
    params = [Parameter(whole[:3]), Parameter(whole[1:])]
    optimizer = optimizer_of(clipped, params, ("m",))
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0 shares memory .* User\.rule .* several"):
        optimizer.step()
    assert torch.equal(whole, torch.zeros(4))


def test_groups_must_ask_for_the_same_numbers() -> None:
    params = [Parameter(torch.zeros(3)), Parameter(torch.zeros(3))]
    optimizer = ClippedAdam([{"params": params[:1], "of_group": True}, {"params": params[1:]}])
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(
        RuntimeError, match=r"ClippedAdam\.rule asks for norm\(over='all'\).*norm\(over='group'\)"
    ):
        optimizer.step()
    assert all(torch.equal(param, torch.zeros(3)) for param in params)


@pytest.mark.parametrize("dtype", [torch.complex64])
def test_complex_numbers_are_refused(engine: str, dtype: torch.dtype) -> None:
    param = Parameter(torch.ones(3, dtype=dtype))
    param.grad = torch.ones(3, dtype=dtype)
    options = {name: value for name, value in ENGINES[engine].items() if name == "foreach"}
    with pytest.raises(RuntimeError, match=r"norm\(\); but a parameter is complex"):
        optimizer_of(clipped, [param], ("m",), **options).step()


def test_sparse_gradients_are_refused_or_made_dense() -> None:
    class Rows(ElementwiseOptimizer):
        coefficients = staticmethod(lambda lr: {"lr": lr})
        rule = staticmethod(lambda p, g, lr: p - lr * g / g.norm(over="all"))

        def sparse_gradients(self, group: Any) -> Any:
            return group["how"]

    for how in ("rows", "dense"):
        params = [Parameter(torch.zeros(3, 2)), Parameter(torch.zeros(2))]
        optimizer = Rows(params, {"lr": 1.0, "how": how})
        params[0].grad = torch.sparse_coo_tensor([[1]], [[3.0, 0.0]], (3, 2))
        params[1].grad = torch.tensor([4.0, 0.0])
        if how == "rows":
            with pytest.raises(RuntimeError, match=r"norm\(\); but a gradient .*sparse"):
                optimizer.step()
            continue
        optimizer.step()
        torch.testing.assert_close(params[0][1], torch.tensor([-0.6, 0.0]))
        torch.testing.assert_close(params[1].detach(), torch.tensor([-0.8, 0.0]))


def test_the_namespace_is_torch_but_for_reductions() -> None:
    assert XP.sqrt is torch.sqrt
    assert XP.nn is torch.nn
    x = normal((4, 3))
    assert torch.equal(XP.norm(x), torch.norm(x))
    assert torch.equal(XP.sum(x, 0), x.sum(0))
    torch.testing.assert_close(XP.rms(x), x.square().mean().sqrt())
    torch.testing.assert_close(XP.dot(x, x), (x * x).sum())
