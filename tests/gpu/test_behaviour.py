"""What only a GPU shows: work that runs on while the host goes ahead, streams, scalers, memory."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

import torchopt_course as oc
from recipes.zoo import LAMB
from torchopt_course.release import release_gradients

from ..helpers import NAMES, assert_same, ours, parameters, set_gradients, theirs
from .twins import DEVICE, clipped, twins

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]


@pytest.fixture
def waiting_is_an_error() -> Iterator[Callable[[], None]]:
    """From its call on, whatever lets the host wait for the device raises."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


NEVER_WAIT: dict[str, Callable[..., Any]] = {
    **{name: ours(name) for name in NAMES},
    "LAMB": LAMB,
    "Adam with the global norm clipped": clipped,
    "Adam on the device": lambda params: oc.Adam(params, fused=True),
    "Adam, capturable": lambda params: oc.Adam(params, capturable=True),
    "Adam, foreach": lambda params: oc.Adam(params, foreach=True),
    "Adam, states by chance": lambda params: oc.Adam(
        params, state_dtype=torch.bfloat16, rounding="stochastic"
    ),
}


@pytest.mark.parametrize("name", NEVER_WAIT)
def test_the_host_never_waits(name: str, waiting_is_an_error: Callable[[], None]) -> None:
    (params,) = twins(1)
    optimizer = NEVER_WAIT[name](params)
    set_gradients(0, params)
    for _ in range(3):
        optimizer.step()
    new = [torch.randn_like(param) for param in params]
    waiting_is_an_error()
    for step in range(4):
        for param, grad in zip(params, new, strict=True):
            param.grad = grad.clone()  # at another address
        optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}, {"fused": False}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_trains_under_autocast_and_a_scaler(name: str, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 4)).to(DEVICE)
    nets = [net, copy.deepcopy(net)]
    optimizers = [
        ours(name)(nets[0].parameters(), lr=0.01, **options),
        theirs(name)(nets[1].parameters(), lr=0.01, foreach=False),
    ]
    inputs, labels = torch.randn(64, 20, device=DEVICE), torch.randint(4, (64,), device=DEVICE)
    scales = []
    for model, optimizer in zip(nets, optimizers, strict=True):
        scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**10, growth_interval=3)
        for step in range(8):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype=torch.float16):
                loss = cross_entropy(model(inputs * (torch.inf if step == 4 else 1)), labels)
            scaler.scale(loss).backward()
            if step % 2:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
    assert scales[0] == scales[1]
    for param, twin in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(param, twin, rtol=2e-3, atol=2e-5)


def test_steps_on_another_stream() -> None:
    """Where the gradients have just been computed, the step and what it uploads run too."""
    mine, reference = twins()
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    for step in range(6):
        set_gradients(step, mine, reference)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(5_000_000)
            for param in mine:
                param.grad = 2 * param.grad  # type: ignore[operator]
            optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        for twin in reference:
            twin.grad = 2 * twin.grad  # type: ignore[operator]
        other.step()
    assert_same(mine, reference, optimizer, other)


def test_tables_stay_while_the_device_is_behind() -> None:
    """Addresses change in each step while the device has not begun the first: no table is written over."""
    mine, reference = twins()
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    set_gradients(0, mine, reference)
    optimizer.step()
    other.step()
    torch.cuda._sleep(200_000_000)
    for step in range(30):
        for i, (param, twin) in enumerate(zip(mine, reference, strict=True)):
            grad = torch.full_like(param, 0.1 * (step + i) - 1)
            param.grad, twin.grad = grad.clone(), grad.clone()
        if step % 7 == 3:
            mine[1].grad = reference[1].grad = None
        optimizer.step()
    for step in range(30):
        for i, twin in enumerate(reference):
            twin.grad = torch.full_like(twin, 0.1 * (step + i) - 1)
        if step % 7 == 3:
            reference[1].grad = None
        other.step()
    assert_same(mine, reference, optimizer, other)


def test_no_temporaries() -> None:
    param = Parameter(torch.ones(50_000_000, device=DEVICE))
    param.grad = torch.ones_like(param)
    optimizer = oc.Adam([param])
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        optimizer.step()
    assert torch.cuda.max_memory_allocated() - before < 1_000_000


def test_memory_does_not_grow() -> None:
    (params,) = twins(1)
    optimizer = oc.Adam(params)
    used = []
    for step in range(60):
        set_gradients(step, params)
        optimizer.step()
        if step in (20, 59):
            torch.cuda.synchronize()
            used.append(torch.cuda.memory_allocated())
    assert used[1] <= used[0] + 10_000


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"capturable": True}], ids=str)
def test_checkpoints_cross_devices_and_packages(options: dict[str, bool]) -> None:
    """torch on the GPU, ours on the CPU, ours on the GPU, torch on the GPU: one trajectory."""
    # Torch's fused kernel takes gradients for laid out as their parameters are.
    mine, expected = twins(dtype=torch.float64, kinds=["vector", "matrix", "large"])
    other = torch.optim.Adam(expected, lr=0.1, foreach=False)
    make = [
        (torch.optim.Adam, DEVICE, options if options else {"foreach": True, **options}),
        (oc.Adam, "cpu", {}),
        (oc.Adam, DEVICE, options),
        (torch.optim.Adam, DEVICE, {}),
    ]
    saved, params = None, mine
    for place, (kind, device, how) in enumerate(make):
        params = [Parameter(param.detach().to(device)) for param in params]
        optimizer: Any = kind(params, lr=0.1, **how)
        if saved is not None:
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            buffer.seek(0)
            loaded = torch.load(buffer, map_location=device, weights_only=True)
            for group in loaded["param_groups"]:
                group.update({"foreach": None, "fused": None, "capturable": False} | how)
            optimizer.load_state_dict(loaded)
        for step in range(2):
            set_gradients(10 * place + step, params, expected)
            optimizer.step()
            other.step()
        saved = optimizer.state_dict()
    # Torch itself counts in single precision where steps are on the device.
    bounds = {"rtol": 1e-4, "atol": 1e-4} if options else {"rtol": 1e-9, "atol": 1e-11}
    for param, twin in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), twin.detach().to(param.device), **bounds)


def test_parameters_on_both_devices_and_in_all_precisions() -> None:
    kinds = ["vector", "matrix"]

    def make() -> list[Parameter]:
        return [
            Parameter(param.detach().to(device, dtype))
            for device in ("cpu", DEVICE)
            for dtype in (torch.float32, torch.float64, torch.bfloat16)
            for param in parameters(kinds)
        ]

    mine, reference = make(), make()
    optimizer, other = oc.Adam(mine, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    for step in range(3):
        set_gradients(step, mine, reference)
        optimizer.step()
        other.step()
    report = optimizer.engine_report()
    assert "fused CPU engine" in report
    assert "fused CUDA engine" in report
    for param, twin in zip(mine, reference, strict=True):
        bound = 3e-2 if param.dtype == torch.bfloat16 else 2e-5
        torch.testing.assert_close(param, twin, rtol=bound, atol=bound)


def test_parameters_that_come_to_share_memory() -> None:
    """``b.data = a.data`` between two steps: what torch does, twice to the same numbers, or an error."""
    mine, reference = ([Parameter(torch.ones(5, device=DEVICE)) for _ in range(2)] for _ in range(2))
    optimizer, other = oc.SGD(mine, 0.1), torch.optim.SGD(reference, 0.1, foreach=False)
    for step in range(4):
        if step == 2:
            mine[1].data, reference[1].data = mine[0].data, reference[0].data
        for params in (mine, reference):
            for param in params:
                param.grad = torch.ones_like(param)
        optimizer.step()
        other.step()
    torch.testing.assert_close(mine[0], reference[0])


def test_wrong_devices_are_named() -> None:
    param = Parameter(torch.ones(3, device=DEVICE))
    optimizer = oc.Adam([param])
    param.grad = torch.ones(3, device=DEVICE)
    optimizer.step()
    optimizer.state[param]["exp_avg"] = optimizer.state[param]["exp_avg"].cpu()
    with pytest.raises(RuntimeError, match=r"cpu.*cuda|cuda.*cpu"):
        optimizer.step()


def test_a_step_left_out_by_a_scaler_alone() -> None:
    """``skip_nonfinite`` on the device, without a scaler: nothing waits, nothing moves."""
    from torchopt_course.transforms import skip_nonfinite

    param = Parameter(torch.ones(3, device=DEVICE))
    optimizer = oc.Adam([param], lr=0.1, transforms=[skip_nonfinite()])
    moved: list[Tensor] = []
    for grad in (1.0, torch.inf, 1.0):
        param.grad = torch.full_like(param, grad)
        before = param.detach().clone()
        optimizer.step()
        moved.append((param.detach() - before).abs().amax())
    assert [value.item() > 0.05 for value in moved] == [True, False, True]


def test_gradients_released_in_the_backward_pass() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 4)).to(DEVICE)
    twin = copy.deepcopy(net)
    optimizer = oc.Adam(net.parameters(), lr=0.01)
    release_gradients(net, optimizer)
    other = torch.optim.Adam(twin.parameters(), lr=0.01, foreach=False)
    inputs, labels = torch.randn(64, 20, device=DEVICE), torch.randint(4, (64,), device=DEVICE)
    for _ in range(4):
        cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        assert all(param.grad is None for param in net.parameters())
        other.zero_grad()
        cross_entropy(twin(inputs), labels).backward()
        other.step()
    for param, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-4, atol=1e-5)


def test_compiled_by_torch() -> None:
    (params, reference) = twins()
    optimizer, other = oc.Adam(params, lr=0.1), torch.optim.Adam(reference, lr=0.1, foreach=False)
    step = torch.compile(optimizer.step)
    for count in range(3):
        set_gradients(count, params, reference)
        step()
        other.step()
    assert_same(params, reference, optimizer, other)
