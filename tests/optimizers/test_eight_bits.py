"""``state_dtype="8bit"``: codes and scales, the same on each engine, and what cannot be had."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.eight_bits import decode
from torchopt_course.engines.native import step as native

from ..helpers import ENGINES, engines_used, every_engine, set_gradients
from .stored import OPTIMIZERS, B, F, H, assert_same_tensors, tensors_of

# -- the engines ---------------------------------------------------------------------------------------------


def some_parameters(dtype: torch.dtype = F) -> list[Parameter]:
    """Longer than a block and no multiple, transposed, and too small for 8 bits."""
    generator = torch.Generator().manual_seed(1)
    shapes = (5003,), (70, 64), (7,)
    first, second, third = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return [Parameter(first), Parameter(second.t()), Parameter(third)]


def stepped(make: Any, dtype: torch.dtype = F, steps: int = 4, **options: Any) -> tuple[list[Parameter], Any]:
    params = some_parameters(dtype)
    optimizer = make(params, lr=0.01, **options)
    for step in range(steps):
        set_gradients(step, params)
        optimizer.step()
    return params, optimizer


# Each compiles kernels: of those that are stored alike one, all in `make test-slow`.
ALIKE = ("Momentum", "Adagrad", "RMSprop", "AdamW")
CASES = [
    *(
        pytest.param(name, F, {}, marks=[pytest.mark.slow] * (name in ALIKE))
        for name, case in OPTIMIZERS.items()
        if case.states
    ),
    ("Adam", F, {"rounding": "stochastic"}),
    ("Adam", B, {}),
    ("Adam", B, {"rounding": "kahan"}),
    ("Lion", H, {"rounding": "stochastic"}),
    ("AdaMax", torch.float64, {"rounding": "stochastic"}),
]


@pytest.mark.parametrize(("name", "dtype", "options"), CASES, ids=str)
def test_the_same_codes_and_a_quarter_of_the_bytes_on_each_engine(
    name: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    case = OPTIMIZERS[name]
    options = {"state_dtype": "8bit", **options, **case.options}
    mine = stepped(case.make, dtype, **options)
    assert engines_used(mine[1])["cpu"] == 3
    for engine in ("foreach", "eager"):
        other = stepped(case.make, dtype, **options, **ENGINES[engine])
        assert engines_used(other[1])["cpu"] == 0
        *large, small = range(3)
        assert_same_tensors(*(([run[0][i] for i in large], run[1]) for run in (mine, other)), engine)
        torch.testing.assert_close(mine[0][small], other[0][small])  # nothing of it is rounded to fewer bits
    lost = dtype.itemsize if options.get("rounding") == "kahan" else 0
    for param in mine[0]:
        sizes = {key: state.nbytes for key, state in mine[1].state[param].items() if key != "step"}
        count = param.numel()
        of_states = count + 4 * -(-count // 256) if count >= 4096 else 4 * count
        assert sum(sizes.values()) == case.states * of_states + lost * count
        if count >= 4096:
            assert sum(sizes.values()) - lost * count <= 1.02 * case.states * count


def test_beside_states_of_16_bits() -> None:
    options = {"state_dtype": {"exp_avg": B, "exp_avg_sq": "8bit"}, "rounding": "kahan"}
    mine = stepped(oc.Adam, **options)
    assert engines_used(mine[1])["cpu"] == 3
    assert_same_tensors(mine, stepped(oc.Adam, **options, **ENGINES["eager"]))
    assert [key for key in mine[1].state[mine[0][0]] if key != "step"] == [
        *("exp_avg", "exp_avg_sq_codes", "exp_avg_sq_scales", "exp_avg_compensation")
    ]


def test_threads_change_nothing() -> None:
    native.make_ready()  # which shares the work among threads
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        param = Parameter(torch.ones(100_003))
        optimizer = oc.Adam([param], state_dtype="8bit", rounding="stochastic")
        for _ in range(3):
            param.grad = torch.linspace(-1, 1, 100_003)
            optimizer.step()
        results.append(([param], optimizer))
    assert_same_tensors(*results)


@every_engine
def test_steps_are_those_of_float32_from_the_same_numbers(engine: dict[str, bool]) -> None:
    params = some_parameters()
    optimizer = oc.Adam(params, lr=0.1, state_dtype="8bit", **engine)
    for step in range(4):
        twins = [Parameter(param.detach().clone()) for param in params]
        other = torch.optim.Adam(twins, lr=0.1, foreach=False)
        for param, twin in zip(params, twins, strict=True):
            for key, value in optimizer.state.get(param, {}).items():
                name = key.removesuffix("_codes")
                if name != key:
                    other.state[twin][name] = decode(value, optimizer.state[param][f"{name}_scales"])
                elif not key.endswith("_scales"):
                    other.state[twin][key] = value.clone()
        set_gradients(step, params, twins)
        optimizer.step()
        other.step()
        for param, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("together", [False, True], ids=["each tensor", "all tensors"])
def test_a_rule_that_reduces_reads_codes_too(together: bool) -> None:
    class Normed(oc.ElementwiseOptimizer):
        states = ("exp_avg",)

        @staticmethod
        def coefficients(lr: float) -> dict[str, float]:
            return {"lr": lr, "fresh": 0.1}

        @staticmethod
        def rule(p: Any, g: Any, exp_avg: Any, lr: Any, fresh: Any) -> Any:
            before, exp_avg = exp_avg, exp_avg + fresh * (g - exp_avg)
            norm = xp.norm(before, over="all") if together else xp.norm(before)  # type: ignore[call-overload]
            return p - lr * exp_avg / (norm + 1), exp_avg

    runs = []
    for engine in ({}, {"fused": False}):
        params = some_parameters()
        optimizer = Normed(params, {"lr": 1.0, "state_dtype": "8bit", **engine})
        for step in range(3):
            set_gradients(step, params)
            optimizer.step()
        runs.append((params, optimizer))
    assert engines_used(runs[0][1])["cpu"] == 3
    for (name, got), (_, expected) in zip(tensors_of(*runs[0]), tensors_of(*runs[1]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, msg=name)


# -- checkpoints and mistakes --------------------------------------------------------------------------------


@every_engine
def test_a_resumed_run_is_the_same_run(engine: dict[str, bool]) -> None:
    options = {"state_dtype": "8bit", "rounding": "stochastic", **engine}
    params, optimizer = stepped(oc.Adam, **options)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for asked in (options, engine):  # who asks for nothing gets what the checkpoint says
        twins = [Parameter(param.detach().clone()) for param in params]
        another = oc.Adam(twins, lr=0.01, **asked)
        another.load_state_dict(copy.deepcopy(saved))
        assert_same_tensors((twins, another), (params, optimizer), "loaded")
        copied, original = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
        reference = oc.Adam(copied, lr=0.01, **options)
        reference.load_state_dict(original)
        for step in range(4, 6):
            set_gradients(step, copied, twins)
            reference.step()
            another.step()
        assert_same_tensors((twins, another), (copied, reference), "went on")


def test_to_and_from_other_precisions() -> None:
    params, optimizer = stepped(oc.Adam, state_dtype="8bit")
    before = decode(*(optimizer.state[params[0]][f"exp_avg_{what}"] for what in ("codes", "scales")))
    optimizer.param_groups[0]["state_dtype"] = F
    for param in params:
        param.grad = None
    set_gradients(4, params[:1])
    optimizer.step()
    state = optimizer.state[params[0]]
    assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    torch.testing.assert_close(state["exp_avg"], before + 0.1 * (params[0].grad - before))  # type: ignore[operator]
    optimizer.param_groups[0]["state_dtype"] = "8bit"
    set_gradients(5, params[:1])
    optimizer.step()
    assert state["exp_avg_codes"].dtype == torch.uint8
    assert "exp_avg" not in state
    # From torch's checkpoint.
    torchs = some_parameters()
    other = torch.optim.Adam(torchs, lr=0.01)
    set_gradients(0, torchs)
    other.step()
    mine = [Parameter(param.detach().clone()) for param in torchs]
    optimizer = oc.Adam(mine, lr=0.01, state_dtype="8bit")
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    set_gradients(1, mine, torchs)
    optimizer.step()
    other.step()
    for param, twin in zip(mine, torchs, strict=True):
        # States are off by a sixteenth at most before the step of some 0.01.
        torch.testing.assert_close(param, twin, rtol=0, atol=2e-3)


def test_torch_does_not_take_codes_for_numbers() -> None:
    params, optimizer = stepped(oc.Adam, state_dtype="8bit")
    other = torch.optim.Adam(params, lr=0.01)
    other.load_state_dict(optimizer.state_dict())
    with pytest.raises(KeyError, match="exp_avg"):
        other.step()


def test_sparse_gradients_are_made_dense() -> None:
    sparse, dense = (Parameter(torch.ones(5000, 3)) for _ in range(2))
    grad = torch.zeros(5000, 3)
    grad[1] = 0.3
    for param, value in ((sparse, grad.to_sparse(1)), (dense, grad)):
        optimizer = oc.Adagrad([param], lr=0.1, state_dtype="8bit")
        for _ in range(2):
            param.grad = value
            optimizer.step()
    assert sparse.equal(dense)


def test_what_cannot_be_had_is_refused() -> None:
    params = some_parameters()
    with pytest.raises(ValueError, match="no tensor of Adam has 16 bits"):
        oc.Adam(params, state_dtype="8bit", rounding="kahan")
    with pytest.raises(RuntimeError, match="state_dtype='8bit' has no derivative"):
        oc.Adam(params, state_dtype="8bit", differentiable=True)
    with pytest.raises(
        TypeError, match=r"state_dtype is '4bit', expected one of .*, '8bit', or a dictionary"
    ):
        oc.Adam(params, state_dtype="4bit")
    with pytest.raises(ValueError, match="state_dtype=8bit is given, but a parameter is of dtype"):
        oc.Adam([Parameter(torch.ones(2, dtype=torch.complex64))], state_dtype="8bit")
    _, optimizer = stepped(oc.Adam, state_dtype="8bit")
    with pytest.raises(ValueError, match=r"has state_dtype=8bit, the optimizer state_dtype=torch.bfloat16"):
        oc.Adam(some_parameters(), state_dtype=B).load_state_dict(optimizer.state_dict())
    for key, value, words in (
        ("exp_avg_scales", None, "'exp_avg_scales' is NoneType, expected a tensor of torch.float32"),
        ("exp_avg_scales", torch.ones(3), r"of shape \(3,\), expected torch.float32 of shape \(20,\)"),
        ("exp_avg_codes", torch.ones(5003), "is torch.float32 of shape .*, expected torch.uint8"),
    ):
        saved = copy.deepcopy(optimizer.state_dict())
        saved["state"][0][key] = value
        fresh = oc.Adam(some_parameters())
        with pytest.raises((ValueError, KeyError), match=words if value is not None else "exp_avg"):
            fresh.load_state_dict(saved)
        assert not fresh.state
        params, broken = stepped(oc.Adam, state_dtype="8bit")
        broken.state[params[0]][key] = value
        before = params[0].detach().clone()
        with pytest.raises(RuntimeError, match=words):
            broken.step()
        assert params[0].equal(before)
