"""The user's tensors are the user's: what is moved, pruned or dropped is gone at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
import triton
from torch.nn import Parameter

from torchopt_course.engines.cuda import bucket as cuda
from torchopt_course.engines.native import step as native
from torchopt_course.engines.native.update import GIL_FREE_FROM

from ..helpers import ENGINES, NAMES, assert_same, ours, parameters, set_gradients, theirs

KINDS = ["vector", "matrix", "channels_last", "scalar"]
OPTIONS = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
}


@pytest.fixture(autouse=True, scope="module")
def _no_garbage_collector() -> Iterator[None]:
    """What is only freed by chance, in a cycle, is not freed when it matters.

    Where a test collects all the same, it need not look through what the tests before have left.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=[*ENGINES, "triton"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    if request.param == "triton":
        monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
        monkeypatch.setattr(cuda.CudaBucket, "serves", lambda device: device == "cpu")
    return ENGINES.get(request.param, {"fused": True})


def stepped(name: str, engine: dict[str, bool]) -> tuple[list[Parameter], torch.optim.Optimizer]:
    params = parameters(KINDS)
    optimizer = ours(name)(params, lr=0.01, **OPTIONS.get(name, {}), **engine)
    for step in range(2):
        set_gradients(step, params)
        optimizer.step()
    gc.collect()  # the first optimizer of all imports a part of torch, which leaves cycles
    return params, optimizer


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_dropped_is_gone(name: str, engine: dict[str, bool]) -> None:
    params, optimizer = stepped(name, engine)
    for i in range(len(params)):
        grad = weakref.ref(params[i].grad)
        params[i].grad = None
        assert grad() is None, f"gradient {i}"
        own = optimizer.state.get(params[i], {})
        for key in own:
            state = weakref.ref(own[key])
            own[key] = own[key].clone()
            assert state() is None, f"{key} of parameter {i}"
    for i in reversed(range(len(params))):
        pruned = weakref.ref(params[i])
        optimizer.state.pop(params[i], None)
        del optimizer.param_groups[0]["params"][i], params[i]
        assert pruned() is None, f"parameter {i}"


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_large_gradient_is_gone_too(is_ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a kernel lets other threads run the step keeps it, with and without the compiled loop."""
    native.make_ready()
    param = Parameter(torch.ones(GIL_FREE_FROM))
    optimizer = ours("SGD")([param], lr=0.01, fused=True)
    if not is_ready:
        monkeypatch.setattr(native, "is_ready", lambda: False)
        monkeypatch.setattr(native, "make_ready_in_time", lambda: None)
    for _ in range(3):
        grad = torch.ones_like(param)
        param.grad, dropped = grad, weakref.ref(grad)
        optimizer.step()
        param.grad = None
        del grad
        assert dropped() is None


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_after_states_were_away(name: str, engine: dict[str, bool]) -> None:
    """Moved to another place and back between steps, as offloading does; a parameter is pruned meanwhile."""
    params, optimizer = stepped(name, engine)
    twins = parameters(KINDS)
    reference = theirs(name)(twins, lr=0.01, **OPTIONS.get(name, {}))
    for step in range(2):
        set_gradients(step, twins)
        reference.step()
    for state in optimizer.state.values():
        for key in state:
            state[key] = state[key].clone()
    for own, optim in ((params, optimizer), (twins, reference)):
        smaller = Parameter(own[1].detach()[:2].clone())
        state = optim.state.pop(own[1], {})
        optim.state[smaller] = {k: v if k == "step" else v[:2].clone() for k, v in state.items()}
        own[1] = optim.param_groups[0]["params"][1] = smaller
    for step in range(2, 5):
        set_gradients(step, params, twins)
        optimizer.step()
        reference.step()
    assert_same(params, twins, optimizer, reference)


def test_a_step_that_failed_keeps_nothing(engine: dict[str, bool]) -> None:
    params, optimizer = stepped("Adam", engine)
    params[1].data = torch.ones(2)  # its gradient does not fit any more
    with pytest.raises(RuntimeError, match="has shape"):
        optimizer.step()
    pruned = weakref.ref(params[0])
    del optimizer.state[params[0]], optimizer.param_groups[0]["params"][0], params[0]
    assert pruned() is None


def test_another_tensor_under_the_same_id_is_noticed() -> None:
    """Ids are given again as soon as a tensor is gone. This one nobody may write to, as in torch."""
    for _ in range(200):
        params, optimizer = stepped("Adam", {})
        state = optimizer.state[params[1]]
        before = id(state["exp_avg"])
        with torch.inference_mode():
            del state["exp_avg"]
            state["exp_avg"] = torch.zeros(5, 3)
        set_gradients(2, params)
        with pytest.raises(RuntimeError, match="inference mode"):
            optimizer.step()
        if id(state["exp_avg"]) == before:
            return
    pytest.fail("no id was given again")


@pytest.mark.parametrize("name", NAMES)
def test_a_module_may_swap_its_parameters(name: str, engine: dict[str, bool]) -> None:
    """`module.to` with `swap_tensors` refuses parameters that somebody has a weak reference to."""
    modules = [torch.nn.Linear(3, 2, dtype=torch.float64) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    options = {"lr": 0.01, **OPTIONS.get(name, {})}
    optimizers = (
        ours(name)(modules[0].parameters(), **options, **engine),
        theirs(name)(modules[1].parameters(), **options),
    )
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        for step, dtype in enumerate([torch.float64, torch.float32, torch.float64]):
            for module, optimizer in zip(modules, optimizers, strict=True):
                optimizer.zero_grad()
                module.to(dtype)
                for state in optimizer.state.values():
                    for key in state:
                        state[key] = state[key] if key == "step" else state[key].to(dtype)
            for i in range(2):
                generator = torch.Generator().manual_seed(step)
                modules[i](torch.randn(4, 3, generator=generator).to(dtype)).sum().backward()
                optimizers[i].step()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    for param, twin in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-7)
