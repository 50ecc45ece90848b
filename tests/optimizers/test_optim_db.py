"""All of torch's own table of optimizer inputs and errors, ``optim_db``, run over our classes.

The tests are those that torch runs over the table (``test/test_optim.py``), said anew for two optimizers side
by side. The truth is always torch's for-loop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..helpers import assert_same, engines_used, ours, set_gradients
from .optim_table import (
    DEVICES,
    KINDS,
    TABLE,
    OptimizerErrorEnum,
    cases,
    every_implementation,
    every_name,
    reference_of,
    twins,
)

devices = pytest.mark.parametrize("device", DEVICES)


@devices
@every_implementation
@every_name
def test_trajectories_equal(name: str, implementation: str, device: str) -> None:
    count = 0
    for options in cases(name, implementation, device):
        for dtype in (torch.float64, torch.float32):
            kinds = KINDS + (["scalar", "one"] if dtype == torch.float64 else [])
            mine, reference = twins(kinds, dtype, device, implementation)
            optimizer = ours(name)(mine, **copy.deepcopy(options))
            other = reference_of(name, reference, options)
            for step in range(6):
                set_gradients(step, mine, reference)
                optimizer.step()
                other.step()
            if device != "cpu":  # the options decide where a step lives
                for state in (*optimizer.state.values(), *other.state.values()):
                    state.update({key: value.cpu() for key, value in state.items() if key == "step"})
            # Torch computes in the precision of options that are tensors: they are of float32.
            has_tensors = any(isinstance(each, Tensor) for each in tree_leaves(options))
            assert_same(mine, reference, optimizer, other, tolerance=2e-5 if has_tensors else None)
            if implementation == "fused" and device == "cpu":
                assert not engines_used(optimizer)["eager"]
        count += 1
    assert count >= 5, "every input of the table has been run"


@devices
@every_name
def test_errors(name: str, device: str) -> None:
    """Same type, and the message has what torch says."""
    errors = TABLE[name].optim_error_inputs_func(device, torch.float32)
    assert len(errors) >= 7 or device == "cuda"
    for error in errors:
        case = error.optimizer_error_input
        print(f"{name}, {device}: {case.desc}")
        params = case.params if case.params is not None else [nn.Parameter(torch.ones(2, 3, device=device))]

        def use(make: Callable[..., torch.optim.Optimizer]) -> None:
            optimizer = make(params, **case.kwargs)  # noqa: B023
            if error.error_on is OptimizerErrorEnum.STEP_ERROR:  # noqa: B023
                optimizer.step()

        kind, words = error.error_type, error.error_regex
        for make in (getattr(torch.optim, name), ours(name)):
            if issubclass(kind, Warning):
                with pytest.warns(kind, match=words):
                    use(make)
            else:
                with pytest.raises(kind, match=words) as raised:
                    use(make)
                assert type(raised.value) is kind


def loss_of(weight: Tensor, bias: Tensor) -> Tensor:
    inputs = torch.linspace(-1, 1, 5).to(weight)
    return (weight.mv(inputs) + bias).pow(2).sum()


@pytest.mark.parametrize("contiguous", [True, False], ids=["contiguous", "strided"])
@pytest.mark.parametrize("implementation", ["default", "for-loop", "foreach"])
@every_name
def test_goes_in_the_right_direction(name: str, implementation: str, contiguous: bool) -> None:
    """Also under torch's schedulers; and parameter groups that have a rate of their own."""
    for options in cases(name, implementation):
        if contiguous:
            weight, bias = (nn.Parameter(torch.randn(*shape)) for shape in ((10, 5), (10,)))
        else:
            weight = nn.Parameter(torch.randn(10, 5, 2)[..., 0])
            bias = nn.Parameter(torch.randn(10, 2)[..., 0])
        optimizer = ours(name)([{"params": [weight]}, {"params": [bias], "lr": 0.01}], **options)
        schedulers = [
            torch.optim.lr_scheduler.StepLR(optimizer, gamma=0.9, step_size=10),
            torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
        ]

        def closure() -> Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = loss_of(weight, bias)  # noqa: B023
            loss.backward()
            return loss

        first = closure().item()
        for _ in range(20):
            loss = optimizer.step(closure)
            schedulers[0].step()
            schedulers[1].step(loss.detach())
        last = closure().item()
        assert last > first if options.get("maximize") else last < first


@every_implementation
@every_name
def test_step_is_noop_without_gradients(name: str, implementation: str) -> None:
    for options in cases(name, implementation):
        mine, _ = twins(KINDS, torch.float32, "cpu", implementation)
        before = [param.detach().clone() for param in mine]
        optimizer = ours(name)(mine, **options)
        saved = copy.deepcopy(optimizer.state_dict()["state"])
        optimizer.step()
        assert all(torch.equal(param, old) for param, old in zip(mine, before, strict=True))
        after = optimizer.state_dict()["state"]
        assert saved.keys() == after.keys(), "no state for what was not stepped"
        assert all(torch.equal(after[i][key], saved[i][key]) for i in saved for key in saved[i])


@every_implementation
@every_name
def test_step_is_noop_for_zero_gradients(name: str, implementation: str) -> None:
    """But counted; and weight decay pulls as in torch."""
    for options in cases(name, implementation):
        mine, reference = twins(KINDS, torch.float64, "cpu", implementation)
        before = [param.detach().clone() for param in mine]
        optimizer, other = ours(name)(mine, **copy.deepcopy(options)), reference_of(name, reference, options)
        for param in (*mine, *reference):
            param.grad = torch.zeros_like(param)
        optimizer.step()
        other.step()
        if not optimizer.defaults["weight_decay"]:
            assert all(torch.equal(param, old) for param, old in zip(mine, before, strict=True))
        for param, twin in zip(mine, reference, strict=True):
            torch.testing.assert_close(param, twin, rtol=1e-12, atol=1e-12)
        if name != "SGD":
            assert all(state["step"] == 1 for state in optimizer.state.values())


@every_implementation
@every_name
def test_parameters_of_size_zero(name: str, implementation: str) -> None:
    for options in cases(name, implementation):
        alone = nn.Parameter(torch.empty(0), requires_grad=implementation != "differentiable")
        alone.grad = torch.empty(0)
        optimizer = ours(name)([alone], **options)
        for _ in range(2):
            optimizer.step()
        assert alone.shape == (0,)
        assert all(state["step"] == 2 for state in optimizer.state.values() if "step" in state)


@every_name
def test_printed(name: str) -> None:
    """As torch prints it, which is how users look what is set."""
    for options in cases(name, "default"):
        mine, reference = twins(["vector"], torch.float32, "cpu", "default")
        other = getattr(torch.optim, name)(reference, **copy.deepcopy(options))
        assert repr(ours(name)(mine, **options)) == repr(other)


# Complex parameters have no fused engine, in torch neither.
@pytest.mark.parametrize("implementation", ["default", "for-loop", "foreach", "differentiable"])
@every_name
def test_complex_parameters_are_pairs_of_real_ones(name: str, implementation: str) -> None:
    """Against torch, and against the same numbers as real parameters."""
    for options in cases(name, implementation):
        requires_grad = implementation != "differentiable"
        start = torch.randn(5, 3, dtype=torch.complex128)
        mine, reference = ([nn.Parameter(start.clone(), requires_grad=requires_grad)] for _ in range(2))
        real = [nn.Parameter(torch.view_as_real(start).clone(), requires_grad=requires_grad)]
        optimizer, other = ours(name)(mine, **copy.deepcopy(options)), reference_of(name, reference, options)
        as_real = ours(name)(real, **copy.deepcopy(options))
        for step in range(5):
            set_gradients(step, mine, reference)
            assert mine[0].grad is not None
            real[0].grad = torch.view_as_real(mine[0].grad).clone()
            for each in (optimizer, other, as_real):
                each.step()
        assert_same(mine, reference, optimizer, other, 1e-10)
        torch.testing.assert_close(torch.view_as_real(mine[0].detach()), real[0].detach(), rtol=0, atol=1e-10)
