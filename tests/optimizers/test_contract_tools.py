"""What users do to an optimizer: hooks, copies, checkpoints of a whole training.

Whatever is done to our optimizer is done to torch's, and both must go on alike.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import torchopt_course as oc

from ..helpers import NAMES, assert_same, every_engine, ours, parameters, set_gradients, theirs
from ..twins import KINDS, Optimizer, every_variant, side_by_side

# -- maximize, complex ---------------------------------------------------------------------------------


@every_engine
@every_variant
def test_maximize(name: str, options: dict[str, Any], engine: dict[str, bool]) -> None:
    """As torch's; and it ascends: a step on the negative gradient without it."""
    mine, reference, optimizer, other = side_by_side(name, maximize=True, lr=0.01, **options, **engine)
    negated = parameters(KINDS, torch.float64)
    descent = ours(name)(negated, lr=0.01, **options, **engine)
    for step in range(6):
        set_gradients(step, mine, reference, negated)
        for param in negated:
            assert param.grad is not None
            param.grad.neg_()
        kept = [param.grad.clone() for param in mine]
        for each in (optimizer, other, descent):
            each.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(mine, kept, strict=True))
    assert_same(mine, reference, optimizer, other)
    assert_same(mine, negated, optimizer, descent)


@every_variant
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex(name: str, options: dict[str, Any], maximize: bool, dtype: torch.dtype) -> None:
    """Also with conjugated and strided memory, a scalar and nothing at all."""
    starts = [
        torch.randn(4, 3, dtype=dtype),
        torch.randn(3, 4, dtype=dtype).t(),
        torch.randn(4, 6, dtype=dtype)[:, ::2],
        torch.randn((), dtype=dtype),
        torch.randn(0, 2, dtype=dtype),
    ]
    mine, reference = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizer = ours(name)(mine, lr=0.01, maximize=maximize, **options)
    other = theirs(name)(reference, lr=0.01, maximize=maximize, foreach=False, **options)
    for step in range(6):
        set_gradients(step, mine, reference)
        mine[0].grad = mine[0].grad.conj().resolve_conj().conj()  # type: ignore[union-attr]
        assert mine[0].grad.is_conj()
        optimizer.step()
        other.step()
    # torch keeps Adagrad's sum and the second moments complex, too: two real numbers for two.
    assert_same(mine, reference, optimizer, other, 2e-5 if dtype == torch.complex64 else 1e-10)


def test_complex_loss_goes_down() -> None:
    """|z - c|² through autograd, whose gradient for complex numbers has a convention of its own."""
    target = torch.tensor([1 + 2j, -3 + 0.5j])
    for name in NAMES:
        z = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        optimizer = ours(name)([z], lr=0.1 if name != "Adagrad" else 1.0)
        for _ in range(300):
            optimizer.zero_grad()
            (z - target).abs().square().sum().backward()
            optimizer.step()
        torch.testing.assert_close(z.detach(), target, rtol=0.05, atol=0.05)


# -- hooks ---------------------------------------------------------------------------------------------


def test_state_dict_hooks() -> None:
    """In torch's order, with torch's arguments; what a post-hook returns is what the user gets."""
    logs: list[list[Any]] = []
    for make in (oc.Adam, torch.optim.Adam):
        params = parameters(["vector"])
        optimizer, log = make(params), []
        optimizer.register_state_dict_pre_hook(lambda o: log.append(("pre", type(o).__name__)))  # noqa: B023
        optimizer.register_state_dict_pre_hook(lambda o: log.append("first"), prepend=True)  # noqa: B023

        def note(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
            log.append(("post", sorted(state_dict)))  # noqa: B023
            state_dict["version"] = 3

        def replace(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            log.append(("replace", sorted(state_dict)))  # noqa: B023
            return {**state_dict, "replaced": True}

        handles = [optimizer.register_state_dict_post_hook(hook) for hook in (replace, note)]
        set_gradients(0, params)
        optimizer.step()
        log.append(sorted(optimizer.state_dict()))
        for handle in handles:
            handle.remove()
        log.append(sorted(optimizer.state_dict()))
        logs.append(log)
    assert logs[0] == logs[1]
    assert logs[0][0] == "first"
    assert ["param_groups", "replaced", "state", "version"] in logs[0]


def test_load_state_dict_hooks() -> None:
    """A pre-hook may change the options that come in, and a shallow copy protects the caller's."""
    logs: list[list[Any]] = []
    for make in (oc.Adam, torch.optim.Adam):
        params = parameters(["vector"])
        optimizer, log = make(params), []
        set_gradients(0, params)
        optimizer.step()
        saved = optimizer.state_dict()

        def pre(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
            log.append(("pre", optimizer.param_groups[0]["lr"]))  # noqa: B023
            state_dict["param_groups"] = [{**state_dict["param_groups"][0], "lr": 0.5}]

        def replace(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            log.append(("replace", state_dict["param_groups"][0]["lr"]))  # noqa: B023
            return {**state_dict, "param_groups": [{**state_dict["param_groups"][0], "eps": 1e-3}]}

        def post(optimizer: Optimizer) -> None:
            log.append(("post", optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["eps"]))  # noqa: B023

        optimizer.register_load_state_dict_pre_hook(replace)
        optimizer.register_load_state_dict_pre_hook(pre, prepend=True)
        handle = optimizer.register_load_state_dict_post_hook(post)
        optimizer.load_state_dict(saved)
        handle.remove()
        optimizer.load_state_dict(saved)
        log.append(saved["param_groups"][0]["lr"])
        set_gradients(1, params)
        optimizer.step()
        log.append([round(value, 5) for value in params[0].tolist()])
        logs.append(log)
    assert logs[0] == logs[1]
    assert ("post", 0.5, 1e-3) in logs[0]


def test_global_hooks_see_every_optimizer() -> None:
    """In torch's order; a pre-hook may change the arguments of the step."""
    logs: list[list[str]] = []
    for make in (oc.SGD, torch.optim.SGD):
        log: list[str] = []
        optimizers = [make(parameters(["vector"])) for _ in range(2)]

        def closure() -> float:
            log.append("closure")  # noqa: B023
            return 7.0

        def give_closure(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
            log.append(f"global pre {optimizers.index(optimizer)}")  # noqa: B023
            return (args, {"closure": closure})

        handles = [
            register_optimizer_step_pre_hook(give_closure),
            register_optimizer_step_post_hook(
                lambda o, *_: log.append(f"global post {optimizers.index(o)}")  # noqa: B023
            ),
        ]
        try:
            optimizers[0].register_step_pre_hook(lambda *_: log.append("own pre"))  # noqa: B023
            optimizers[0].register_step_post_hook(lambda *_: log.append("own post"))  # noqa: B023
            log += [str(optimizer.step()) for optimizer in optimizers]
        finally:
            for handle in handles:
                handle.remove()
        optimizers[1].step()
        logs.append(log)
    assert logs[0] == logs[1]
    assert logs[0][:5] == ["global pre 0", "own pre", "closure", "own post", "global post 0"]


def test_hook_that_returns_nonsense_is_refused_as_in_torch() -> None:
    for make in (oc.SGD, torch.optim.SGD):
        optimizer = make(parameters(["vector"]))
        optimizer.register_step_pre_hook(lambda *_: "nonsense")  # type: ignore[arg-type,return-value]
        with pytest.raises(RuntimeError, match="must return None or a tuple"):
            optimizer.step()


# -- copies --------------------------------------------------------------------------------------------

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@every_engine
@pytest.mark.parametrize("how", COPIES)
@every_variant
def test_copies_in_mid_run(name: str, options: dict[str, Any], how: str, engine: dict[str, bool]) -> None:
    """The copy goes on bit for bit like the original, and neither touches the other."""
    original, alone = parameters(KINDS), parameters(KINDS)
    optimizer, undisturbed = (ours(name)(params, **options, **engine) for params in (original, alone))
    for step in range(3):
        set_gradients(step, original, alone)
        optimizer.step()
        undisturbed.step()
    duplicates, duplicate = COPIES[how]((original, optimizer))
    assert duplicate.param_groups[0]["params"][0] is duplicates[0]
    before = [param.detach().clone() for param in original]
    for step in range(3, 6):
        set_gradients(step, duplicates, alone)
        duplicate.step()
        undisturbed.step()
    assert all(torch.equal(param, old) for param, old in zip(original, before, strict=True))
    assert_same(duplicates, alone, duplicate, undisturbed, tolerance=0)
    for step in range(3, 6):
        set_gradients(step, original)
        optimizer.step()
    assert_same(original, alone, optimizer, undisturbed, tolerance=0)


def test_whole_trainings_are_copied_and_saved(tmp_path: Any) -> None:
    """Model, optimizer and scheduler in one file, as people save them; loaded, they belong together."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = oc.Adam(model.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    inputs = torch.randn(8, 4)

    def train(model: Any, optimizer: Any, scheduler: Any) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
            scheduler.step()

    train(model, optimizer, scheduler)
    torch.save((model, optimizer, scheduler), tmp_path / "training.pt")
    loaded = torch.load(tmp_path / "training.pt", weights_only=False)
    copied = copy.deepcopy((model, optimizer, scheduler))
    for training in ((model, optimizer, scheduler), loaded, copied):
        train(*training)
    for other, stepped, _ in (loaded, copied):
        assert all(map(torch.equal, other.parameters(), model.parameters()))
        assert stepped.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_that_are_taken_apart(name: str, options: dict[str, Any]) -> None:
    """Flattened by torch.distributed.checkpoint, swapped by torch's stateless step: all know each option."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    model = nn.Linear(2, 2)
    optimizer = ours(name)(model.parameters(), **options)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = copy.deepcopy(optimizer.state_dict())
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    saved = get_optimizer_state_dict(model, optimizer, options=flat)
    fresh = ours(name)(model.parameters(), **options)
    set_optimizer_state_dict(model, fresh, saved, options=flat)
    assert fresh.state_dict()["param_groups"] == before["param_groups"]
    for i, state in before["state"].items():
        assert all(torch.equal(fresh.state_dict()["state"][i][key], value) for key, value in state.items())
    swap = getattr(torch.optim, "swap_in_optimizer_params_and_state", None)
    if swap is None or not before["state"]:
        return
    copies = {key: param.detach().clone() for key, param in model.named_parameters()}
    with swap(optimizer, copies, copy.deepcopy(before)):
        assert optimizer.param_groups[0]["params"][0] is copies["weight"]
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]
