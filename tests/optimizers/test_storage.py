"""``state_dtype`` and ``rounding``: bytes, the same numbers on each engine, checkpoints, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch as xp
from torch.nn import Parameter

import torchopt_course as oc
from torchopt_course.engines.native import step as native

from ..helpers import ENGINES, NAMES, engines_used, ours, set_gradients, theirs

B, H, F = torch.bfloat16, torch.float16, torch.float32


class Lion(oc.ElementwiseOptimizer):
    """A user's: its options go by the defaults."""

    states = ("exp_avg",)

    def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr, "mix": 0.1, "fresh": 0.01}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any) -> Any:
        return p - lr * xp.sign(exp_avg + mix * (g - exp_avg)), exp_avg + fresh * (g - exp_avg)


class Plain(oc.ElementwiseOptimizer):
    """A user's without states."""

    def __init__(self, params: Any, lr: float = 1e-3, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    @staticmethod
    def coefficients(lr: float) -> dict[str, float]:
        return {"lr": lr}

    @staticmethod
    def rule(p: Any, g: Any, lr: Any) -> Any:
        return p - lr * g


OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{name: (ours(name), {}) for name in NAMES},
    "Adam amsgrad": (oc.Adam, {"amsgrad": True}),
    "RMSprop centered": (oc.RMSprop, {"momentum": 0.5, "centered": True}),
    "Lion": (Lion, {}),
    "Plain": (Plain, {}),
}
# The dtype of parameters, and the options.
STORED: list[tuple[torch.dtype, dict[str, Any]]] = [
    (F, {"state_dtype": B}),
    (F, {"state_dtype": B, "rounding": "kahan"}),
    (F, {"state_dtype": H, "rounding": "stochastic"}),
    (B, {"state_dtype": F}),
    (B, {"rounding": "nearest"}),
    (B, {"rounding": "stochastic"}),
    (B, {"rounding": "kahan"}),
    (H, {"rounding": "kahan", "state_dtype": B}),
    (H, {"rounding": "stochastic"}),
]


def some_parameters(dtype: torch.dtype, count: int = 300) -> list[Parameter]:
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(count, generator=generator)
    second = torch.randn(3, 5, generator=generator).t()
    return [Parameter(first.to(dtype)), Parameter(second.to(dtype))]


def stepped(make: Any, dtype: torch.dtype, steps: int = 5, **options: Any) -> tuple[list[Parameter], Any]:
    params = some_parameters(dtype)
    optimizer = make(params, lr=0.01, **options)
    for step in range(steps):
        set_gradients(step, params)
        optimizer.step()
    return params, optimizer


def tensors_of(params: list[Parameter], optimizer: Any) -> list[tuple[str, torch.Tensor]]:
    return [(k, v) for p in params for k, v in (("p", p.detach()), *optimizer.state.get(p, {}).items())]


# Each way of storing with Adam, each optimizer with a few.
CASES = [
    *(("Adam amsgrad", *stored) for stored in STORED),
    *((name, *STORED[6]) for name in OPTIMIZERS if name != "Adam amsgrad"),
    *((name, *STORED[2]) for name in ("Momentum", "RMSprop centered", "Lion")),
    *((name, *STORED[5]) for name in ("SGD", "Plain")),
]


@pytest.mark.parametrize(("name", "dtype", "options"), CASES, ids=str)
def test_the_same_numbers_on_each_engine(name: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    make, extra = OPTIMIZERS[name]
    mine = stepped(make, dtype, **options, **extra)
    assert engines_used(mine[1])["cpu"] == 2
    for engine in (ENGINES["foreach"], ENGINES["eager"]):
        other = stepped(make, dtype, **options, **extra, **engine)
        assert engines_used(other[1])["cpu"] == 0
        for (name, got), (label, expected) in zip(tensors_of(*mine), tensors_of(*other), strict=True):
            assert name == label
            assert got.dtype == expected.dtype, name
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (F, {"state_dtype": B}, 4),
        (F, {"state_dtype": {"exp_avg": B}}, 6),
        (F, {"state_dtype": B, "rounding": "kahan"}, 8),
        (F, {"state_dtype": B, "rounding": "stochastic"}, 4),
        (B, {"state_dtype": F}, 8),
        (B, {"rounding": "kahan"}, 10),
        (B, {"state_dtype": F, "rounding": "kahan"}, 10),
        (B, {"rounding": "stochastic"}, 4),
        (F, {}, 8),
    ],
    ids=str,
)
def test_bytes_for_each_element(
    dtype: torch.dtype, options: dict[str, Any], expected: int, engine: dict[str, bool]
) -> None:
    params, optimizer = stepped(oc.Adam, dtype, steps=2, **options, **engine)
    for param in params:
        states = optimizer.state[param]
        assert sum(state.nbytes for key, state in states.items() if key != "step") == expected * param.numel()
        assert all(state.stride() == param.stride() for key, state in states.items() if key != "step")


def test_16_bit_states_are_torchs_step_rounded_once() -> None:
    """From the same numbers, torch's step of float32: parameters the same, states rounded."""
    params = some_parameters(F)
    optimizer = oc.Adam(params, lr=0.1, state_dtype=B)
    for step in range(5):
        twins = [Parameter(param.detach().clone()) for param in params]
        other = torch.optim.Adam(twins, lr=0.1, foreach=False)
        for param, twin in zip(params, twins, strict=True):
            for key, value in optimizer.state.get(param, {}).items():
                other.state[twin][key] = value.clone().float()
        set_gradients(step, params, twins)
        optimizer.step()
        other.step()
        for param, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-6)
            for key in ("exp_avg", "exp_avg_sq"):
                expected = other.state[twin][key]
                wrong = (
                    optimizer.state[param][key] != expected.to(B)
                ).sum()  # ties, where the last place decides
                assert wrong <= 1, key


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("dtype", [B, H], ids=str)
def test_small_changes_add_up(dtype: torch.dtype, engine: dict[str, bool]) -> None:
    """1 + 400 changes of 1/16 of the last place: nearest forgets all of them, Kahan none, chance some."""
    change = torch.finfo(dtype).eps / 16
    results = {}
    for rounding in ("nearest", "kahan", "stochastic"):
        param = Parameter(torch.ones(4000, dtype=dtype))
        optimizer = Plain([param], lr=1.0, rounding=rounding, **engine)
        for _ in range(32):
            param.grad = torch.full_like(param, -change)
            optimizer.step()
        results[rounding] = param.detach().float() - 1
    assert (results["nearest"] == 0).all()
    assert (results["kahan"] == 32 * change).all()
    # 32 draws with probability 1/16: the mean of 4000 sums has a standard deviation of 0.022 places.
    places = results["stochastic"] / (16 * change)
    assert abs(places.mean().item() - 2) < 5 * 0.022
    assert abs(places.var().item() - 32 / 16 * 15 / 16) < 0.3


@pytest.mark.parametrize("dtype", [B, H], ids=str)
@pytest.mark.parametrize("scale", [1.0, 3e-6], ids=["normal", "subnormal in float16"])
def test_chance_has_the_right_mean(dtype: torch.dtype, scale: float) -> None:
    """Numbers between two neighbours, each 1000 times: up as often as they are on the way up."""
    numbers = scale * (1 + torch.rand(200, generator=torch.Generator().manual_seed(3)))
    state = numbers.repeat_interleave(1000).requires_grad_()

    class Keep(Lion):
        @staticmethod
        def rule(p: Any, g: Any, exp_avg: Any, lr: Any, mix: Any, fresh: Any) -> Any:
            return p + 0 * (lr + mix + fresh), g

    optimizer = Keep([state], state_dtype=dtype, rounding="stochastic")
    state.grad = state.detach().clone()
    optimizer.step()
    kept = optimizer.state[state]["exp_avg"].float().view(200, 1000)
    up, down = kept.max(dim=1).values, kept.min(dim=1).values
    for got, number, high, low in zip(kept, numbers, up, down, strict=True):
        gap = (high - low).item()
        if gap == 0:  # the other neighbour is so far that 1000 draws may miss it
            gap = torch.finfo(dtype).eps * number.item()
        else:
            assert low <= number <= high
        # A share of 1000 draws has a standard deviation of at most 0.016.
        assert abs(got.mean().item() - number.item()) <= 5 * 0.016 * gap + 1e-9


def test_special_numbers_survive_each_way_of_rounding() -> None:
    special = [float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 1.0, 65504.0, 3.0e38]
    for dtype in (B, H):
        for rounding in ("nearest", "stochastic", "kahan"):
            for engine in ENGINES.values():
                param = Parameter(torch.tensor(special).to(dtype))
                before = param.detach().clone()
                optimizer = Plain([param], rounding=rounding, **engine)
                for _ in range(2):
                    param.grad = torch.zeros_like(param)
                    optimizer.step()
                torch.testing.assert_close(param.detach(), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "options"), [(B, {"rounding": "stochastic"}), (F, {"state_dtype": B})], ids=str
)
def test_threads_change_nothing(dtype: torch.dtype, options: dict[str, Any]) -> None:
    native.make_ready()  # which shares the work among threads
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        param = Parameter(torch.ones(100_003, dtype=dtype))
        optimizer = oc.Adam([param], lr=1e-4, **options)
        for _ in range(2):
            param.grad = torch.linspace(-1, 1, 100_003).to(dtype)
            optimizer.step()
        results.append(tensors_of([param], optimizer))
    for (name, got), (_, expected) in zip(*results, strict=True):
        assert got.equal(expected), name


def test_chance_is_another_in_each_step_and_for_each_seed() -> None:
    param = Parameter(torch.ones(1000))
    optimizer = Lion([param], state_dtype=B, rounding="stochastic")
    seen = []
    for _ in range(2):
        optimizer.state.clear()
        param.grad = torch.full_like(param, 0.3)
        optimizer.step()
        seen.append(optimizer.state[param]["exp_avg"])
    assert not seen[0].equal(seen[1]), "the same numbers, another step"
    another = Parameter(torch.ones(1000))
    group = {"params": [another], "rounding_seed": 1}
    optimizer = Lion([group], state_dtype=B, rounding="stochastic")
    another.grad = torch.full_like(another, 0.3)
    optimizer.step()
    assert not seen[0].equal(optimizer.state[another]["exp_avg"])


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_a_resumed_run_is_the_same_run(
    dtype: torch.dtype, options: dict[str, Any], engine: dict[str, bool], tmp_path: Any
) -> None:
    params, optimizer = stepped(oc.Adam, dtype, steps=2, **options, **engine)
    torch.save(
        {"model": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "c.pt"
    )
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = [Parameter(tensor) for tensor in saved["model"]]
    another = oc.Adam(resumed, lr=0.01, **options, **engine)
    another.load_state_dict(saved["optimizer"])
    for step in range(2, 5):
        set_gradients(step, params, resumed)
        optimizer.step()
        another.step()
    for (name, got), (_, expected) in zip(
        tensors_of(resumed, another), tensors_of(params, optimizer), strict=True
    ):
        assert got.dtype == expected.dtype, name
        assert got.equal(expected), name


def test_checkpoints_between_precisions() -> None:
    params, torchs = some_parameters(B), some_parameters(B)
    other = torch.optim.Adam(torchs)
    set_gradients(0, torchs)
    other.step()
    optimizer = oc.Adam(params, state_dtype=F)
    optimizer.load_state_dict(other.state_dict())  # says nothing of precision: converted
    assert optimizer.state[params[0]]["exp_avg"].dtype == F
    assert optimizer.param_groups[0]["state_dtype"] == F
    optimizer.state[params[0]]["exp_avg"].fill_(1 + 2**-20)
    free = oc.Adam(some_parameters(B))
    free.load_state_dict(optimizer.state_dict())  # nothing asked for: as the checkpoint has it
    state = free.state[free.param_groups[0]["params"][0]]["exp_avg"]
    assert state.dtype == F
    assert (state == 1 + 2**-20).all(), "never cast to the parameter's dtype on the way"
    other.load_state_dict(optimizer.state_dict())
    assert other.state[torchs[0]]["exp_avg"].dtype == B
    for asked in ({"state_dtype": B}, {"state_dtype": {"exp_avg": F}}):
        with pytest.raises(
            ValueError, match=r"group 0 has state_dtype=torch.float32, the optimizer state_dtype="
        ):
            oc.Adam(some_parameters(B), **asked).load_state_dict(optimizer.state_dict())
    kahan = oc.Adam(some_parameters(B), rounding="kahan").state_dict()
    with pytest.raises(
        ValueError, match=r"group 0: rounding='kahan' is given, but no tensor of Adam has 16 bits"
    ):
        oc.Adam(some_parameters(F)).load_state_dict(kahan)
    with pytest.raises(ValueError, match="has rounding=kahan, the optimizer rounding=stochastic"):
        oc.Adam(some_parameters(B), rounding="stochastic").load_state_dict(kahan)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"state_dtype": "bfloat16"}, TypeError, "state_dtype is 'bfloat16', expected one of torch.float32"),
        ({"state_dtype": torch.int8}, ValueError, "state_dtype is torch.int8, expected one of"),
        ({"state_dtype": {"exp_avg": None}}, TypeError, r"state_dtype\['exp_avg'\] is None"),
        (
            {"state_dtype": {"momentum": B}},
            ValueError,
            "for 'momentum', but the states of Adam are 'exp_avg'",
        ),
        ({"rounding": "up"}, ValueError, "rounding is 'up', expected one of 'nearest'"),
        (
            {"rounding": "kahan"},
            ValueError,
            "no tensor of Adam has 16 bits: the parameters are torch.float32",
        ),
        ({"rounding": "stochastic", "state_dtype": F}, ValueError, "the states torch.float32; give"),
        (
            {"rounding": "kahan", "state_dtype": B, "differentiable": True},
            RuntimeError,
            "rounding='kahan' has no derivative",
        ),
        ({"rounding": "stochastic", "state_dtype": B, "capturable": True}, RuntimeError, "capturable"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        oc.Adam(some_parameters(F), **options)
    optimizer = oc.Adam(some_parameters(F))
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [Parameter(torch.ones(2))], **options})
    assert len(optimizer.param_groups) == 1


def test_more_bad_options() -> None:
    with pytest.raises(ValueError, match=r"state_dtype=torch.bfloat16 is given, but Plain keeps no states"):
        Plain([Parameter(torch.ones(2))], state_dtype=B)
    with pytest.raises(ValueError, match=r"but a parameter is of dtype torch.complex64"):
        oc.Adam([Parameter(torch.ones(2, dtype=torch.complex64))], state_dtype=B)
    with pytest.raises(ValueError, match=r"rounding_seed=3 is given, but rounding=None draws no random bits"):
        oc.Adam([{"params": [Parameter(torch.ones(2))], "rounding_seed": 3}])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_added_for_who_does_not_ask(name: str) -> None:
    params, twins = some_parameters(F), some_parameters(F)
    optimizer, other = ours(name)(params), theirs(name)(twins)
    assert optimizer.defaults == other.defaults
    assert set(optimizer.param_groups[0]) == set(other.param_groups[0])


def test_an_option_that_is_changed_between_steps() -> None:
    params, optimizer = stepped(oc.Adam, F, steps=2)
    optimizer.param_groups[0]["state_dtype"] = B
    set_gradients(2, params)
    optimizer.step()
    assert {v.dtype for k, v in optimizer.state[params[0]].items() if k != "step"} == {B}
    assert engines_used(optimizer)["cpu"] == 2


def test_sparse_gradients_update_their_rows() -> None:
    for options in ({"state_dtype": B}, {"state_dtype": B, "rounding": "kahan"}):
        sparse, dense = (Parameter(torch.ones(4, 3)) for _ in range(2))
        grad = torch.zeros(4, 3)
        grad[1] = 0.3
        for param, value in ((sparse, grad.to_sparse(1)), (dense, grad)):
            optimizer = oc.Adagrad([param], lr=0.1, **options)
            for _ in range(3):
                param.grad = value
                optimizer.step()
        torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=0)
