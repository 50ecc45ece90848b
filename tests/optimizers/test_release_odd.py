"""Released gradients in odd company: edited groups, chance, passes within passes, owners that are gone."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import torchopt_course as oc
from torchopt_course.release import release_gradients

from .stored import OPTIMIZERS, B
from .test_release import network, train


def two_groups(model: nn.Module) -> list[dict[str, Any]]:
    params = list(model.parameters())
    return [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1}]


@pytest.mark.parametrize("name", ["Momentum", "Adam", "Lion"])
@pytest.mark.parametrize(
    ("dtype", "options"), [(B, {}), (torch.float32, {"state_dtype": B}), (B, {"state_dtype": torch.float32})]
)
def test_chance_is_the_same_as_after_the_backward_pass(
    name: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    """And so a run may be resumed with released gradients, or without them."""
    runs = []
    for released in (True, False):
        model = network().to(dtype)
        params = list(model.parameters())
        groups = [{"params": params[:1]}, {"params": params[1:], "rounding_seed": 4}]
        optimizer = OPTIMIZERS[name].make(groups, lr=0.02, rounding="stochastic", **options)
        if released:
            release_gradients(model, optimizer)
        for step in range(4):
            inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step)).to(dtype)
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        runs.append((params, [group["rounding_step"] for group in optimizer.param_groups]))
    (params, steps), (expected, steps_without) = runs
    assert steps == steps_without == [4, 4]
    for param, other in zip(params, expected, strict=True):
        assert param.equal(other)


def test_parameters_at_mirrored_places_get_chances_of_their_own() -> None:
    """The second of group 0 and the first of group 1, for instance."""
    params = [nn.Parameter(torch.ones(1000, dtype=B)) for _ in range(4)]
    optimizer = oc.SGD([{"params": params[:2]}, {"params": params[2:]}], lr=1e-3, rounding="stochastic")
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert len({tuple(param.tolist()) for param in params}) == 4


def test_groups_may_be_edited() -> None:
    model, twin = network(), network()
    optimizer, other = (oc.AdamW(two_groups(m), lr=0.05) for m in (model, twin))
    release_gradients(model, optimizer)
    for m, each in ((model, optimizer), (twin, other)):
        train(m, each, steps=2)
        each.param_groups.reverse()
        each.param_groups[0]["lr"] = 0.2
        train(m, each, steps=2)
        del each.param_groups[1]["params"][0]
        train(m, each, steps=2)
    for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert param.equal(expected)


class Segments(nn.Module):
    """The same weights in two segments that are computed again in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.use_reentrant = nn.Linear(6, 6), use_reentrant

    def forward(self, x: Tensor) -> Any:
        x = x.clone().requires_grad_()
        for _ in range(2):
            x = checkpoint(lambda x: self.layer(x).tanh(), x, use_reentrant=self.use_reentrant)  # type: ignore[assignment]
        return x


def test_segments_that_are_computed_again() -> None:
    model, twin = Segments(False), Segments(False)
    optimizer, other = (oc.SGD(m.parameters(), lr=0.1) for m in (model, twin))
    release_gradients(model, optimizer)
    train(model, optimizer)
    train(twin, other)
    assert model.layer.weight.equal(twin.layer.weight)
    odd = Segments(True)
    before = odd.layer.weight.detach().clone()
    optimizer = oc.SGD(odd.parameters(), lr=0.1)
    release_gradients(odd, optimizer)
    with pytest.raises(RuntimeError, match="give use_reentrant=False"):
        train(odd, optimizer)
    assert odd.layer.weight.equal(before), "not stepped with a part of its gradient"


def test_nothing_is_kept_alive() -> None:
    model = network()
    optimizer = oc.Adam(model.parameters())
    release_gradients(model, optimizer)
    train(model, optimizer, steps=2)
    weight = model[0].weight  # type: ignore[index]
    alive = [weakref.ref(each) for each in (model, optimizer, weight, optimizer.state[weight]["exp_avg"])]
    del model, optimizer, weight
    gc.collect()
    assert [each() for each in alive] == [None] * 4


def test_an_optimizer_that_nobody_has_kept_is_missed() -> None:
    model = network()
    release_gradients(model, oc.SGD(model.parameters(), lr=0.1))
    gc.collect()
    with pytest.raises(RuntimeError, match="an optimizer that is gone"):
        model(torch.ones(2, 6)).sum().backward()
    model(torch.ones(2, 6)).sum().backward()
    assert all(param.grad is not None for param in model.parameters()), "they wait again"
    model = network()
    handle = release_gradients(model, oc.SGD(model.parameters(), lr=0.1))
    gc.collect()
    before = model[0].weight.detach().clone()  # type: ignore[index]
    model(torch.ones(2, 6)).sum().backward()
    assert not model[0].weight.equal(before), "the handle keeps it"  # type: ignore[index]
    handle.remove()


def test_copies_are_not_released() -> None:
    model = network()
    optimizer = oc.SGD(model.parameters(), lr=0.1)
    handle = release_gradients(model, optimizer)
    twin, other = copy.deepcopy((model, optimizer))
    twin(torch.ones(2, 6)).sum().backward()
    assert all(param.grad is not None for param in twin.parameters())
    release_gradients(twin, other)
    with pytest.raises(TypeError, match="which are not copied"):
        copy.deepcopy(handle)


def test_a_hook_before_the_step_that_comes_later_is_refused() -> None:
    model = network()
    optimizer = oc.SGD(model.parameters(), lr=0.1)
    release_gradients(model, optimizer)
    optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="a hook before its step"):
        train(model, optimizer)


def test_shards_of_fsdp(tmp_path: Any) -> None:
    """It calls such hooks itself, in the backward pass of a node of its own."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, twin = network(), network()
        for module in (model[0], model[2], model):  # type: ignore[index]
            fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
        optimizer, other = (oc.Adam(m.parameters(), lr=0.1) for m in (model, twin))
        release_gradients(model, optimizer)
        train(model, optimizer, steps=3)
        train(twin, other, steps=3)
        for param, expected in zip(model.parameters(), twin.parameters(), strict=True):
            assert param.full_tensor().equal(expected)  # type: ignore[operator]
    finally:
        dist.destroy_process_group()
