"""What each process of a distributed launch does: all scenarios, one after the other, reported by name.

Starting processes costs far more than training a small network, so one launch runs them all, as would::

    torchrun --standalone --nproc-per-node=4 -m tests.distributed.worker DIRECTORY

Four processes leave checkpoints under DIRECTORY, which two processes, launched later, load. Every rank writes
``DIRECTORY/<processes>-<rank>.jsonl``: for each scenario a line with its name and ``"ok"`` or a traceback.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import torchopt_course
from recipes.zoo.adafactor import Adafactor
from recipes.zoo.prodigy import Prodigy
from torchopt_course import xp
from torchopt_course.engines.group import Group

TOLERANCE = 1e-10
STEPS = 4
MODULES = {"ours": torchopt_course, "torch": torch.optim}
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adagrad": {"lr": 0.05, "lr_decay": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "centered": True},
    "Adam": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.01},
}
Prepare = Callable[[nn.Sequential], nn.Module]

# -- a small network, and the same data for any number of processes ------------------------------------------


def network() -> nn.Sequential:
    """Its last tensors have three rows: of two shards one is short, of four one is empty."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def train(model: nn.Module, optimizer: Optimizer, steps: Iterable[int], *, share: bool = True) -> None:
    """Each rank gets its share of a batch, or, where it is the network that is divided, all of it."""
    mine = slice(dist.get_rank(), None, dist.get_world_size()) if share else slice(None)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        targets = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        # Every other time gradients are zeroed and stay where they are in memory.
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        nn.functional.mse_loss(model(inputs[mine]), targets[mine]).backward()
        for layer in model.children():  # torch cannot clip plain tensors and DTensors together
            if not isinstance(layer, nn.Tanh):
                nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()


def data_parallel(model: nn.Sequential) -> nn.Module:
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def sharded(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def offloaded(model: nn.Sequential) -> nn.Module:
    """Where there is a GPU, it computes, and parameters, gradients and states stay on the host."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    policy = CPUOffloadPolicy(pin_memory=False)
    fully_shard(model[0], mesh=mesh, offload_policy=policy)
    return fully_shard(model, mesh=mesh, offload_policy=policy)


def tensor_parallel(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def half_tensor_parallel(model: nn.Sequential) -> nn.Module:
    """Plain parameters and DTensors in one parameter group."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    gather = ColwiseParallel(output_layouts=Replicate())
    return parallelize_module(model, mesh, {"0": gather})


def divided_twice(model: nn.Sequential) -> nn.Module:
    """Tensor-parallel in pairs, and each part sharded over the two pairs."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return fully_shard(model, mesh=mesh["data"])


# -- comparisons ---------------------------------------------------------------------------------------------


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, put together from all ranks; every rank must call it."""
    return {
        name: param.full_tensor() if isinstance(param, DTensor) else param.detach().clone()
        for name, param in model.named_parameters()
    }


def assert_close(got: Tensor, expected: Tensor, what: str) -> None:
    assert got.shape == expected.shape, f"{what}: {got.shape} instead of {expected.shape}"
    if expected.numel():
        difference = (got - expected).abs().max().item()
        assert difference <= TOLERANCE * (expected.abs().max().item() or 1.0), (
            f"{what} is off by {difference}"
        )


def assert_moved(parameters: dict[str, Tensor]) -> None:
    """The training did something, so that agreement means something."""
    for before, after in zip(network().parameters(), parameters.values(), strict=True):
        assert (after - before).abs().max() > 1e-3


def assert_same(mine: nn.Module, optimizer: Optimizer, reference: nn.Module, other: Optimizer) -> None:
    """Parameters and states of this rank agree with torch's: kinds, placements, dtypes, values."""
    for (name, param), twin in zip(mine.named_parameters(), reference.parameters(), strict=True):
        got = {"parameter": param.detach(), **optimizer.state.get(param, {})}
        expected = {"parameter": twin.detach(), **other.state.get(twin, {})}
        assert set(got) == set(expected), f"states of {name}: {sorted(got)}, not {sorted(expected)}"
        for key, value in expected.items():
            what = f"{key} of {name}"
            assert type(got[key]) is type(value), f"{what} is a {type(got[key]).__name__}"
            assert got[key].dtype == value.dtype, f"{what} is of dtype {got[key].dtype}"
            assert got[key].shape == value.shape, f"{what} is of shape {got[key].shape}"
            if isinstance(value, DTensor):
                assert got[key].placements == value.placements, f"{what} is placed as {got[key].placements}"
            assert_close(local(got[key]), local(value), what)


def assert_fused(optimizer: Optimizer) -> None:
    """The fused CPU engine took all parameters of this rank, or their local shards."""
    report = optimizer.engine_report()
    taken = sum(map(int, re.findall(r"fused CPU engine: (\d+) parameter", report)))
    expected = sum(len(group["params"]) for group in optimizer.param_groups)
    assert taken == expected, f"the fused CPU engine took {taken} of {expected}: {report}"


# -- scenarios: they work first and compare last; no rank waits for one whose comparison failed -------------


def agree_with_torch(optimizer_name: str, prepare: Prepare, share: bool, directory: Path) -> None:
    """Trained alike, ours and torch's are in the same place, and ours came there on the fused engine."""
    runs = []
    for module in MODULES.values():
        model = prepare(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=share)
        runs += [model, optimizer]
    assert_moved(whole(runs[0]))
    assert_same(*runs)
    assert_fused(runs[1])
    if prepare is data_parallel:
        for param in runs[0].parameters():
            assert param.grad.untyped_storage().nbytes() > param.nbytes, "no view of a bucket"


def placed_otherwise(optimizer_name: str, what: str, directory: Path) -> None:
    """Gradients or states that are not spread over the processes as their parameter is."""
    ends = []
    for module in MODULES.values():
        model = tensor_parallel(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=False)
        if what == "gradients":
            optimizer.register_step_pre_hook(replicate_gradients)
        else:
            for state in optimizer.state.values():
                state.update({name: replicated(value) for name, value in state.items()})
        train(model, optimizer, range(STEPS, 2 * STEPS), share=False)
        ends.append(whole(model))
    for name, value in ends[1].items():
        assert_close(ends[0][name], value, name)


def replicated(tensor: Tensor) -> Tensor:
    return tensor.redistribute(placements=[Replicate()]) if isinstance(tensor, DTensor) else tensor


def replicate_gradients(optimizer: Optimizer, *_: object) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = replicated(param.grad)


def stale_backward(module_name: str, optimizer_name: str, directory: Path) -> None:
    """A step between forward and backward is noticed by autograd, also when it wrote to local shards only."""
    model = tensor_parallel(network())
    optimizer = getattr(MODULES[module_name], optimizer_name)(model.parameters())
    train(model, optimizer, [0], share=False)
    loss = model(torch.ones(2, 6, dtype=torch.float64)).sum()
    optimizer.step()
    complaint = ""
    try:
        loss.backward()
    except RuntimeError as error:
        complaint = str(error)
    assert "modified by an inplace operation" in complaint, complaint


def zero_redundancy(optimizer_name: str, bucket_view: bool, directory: Path) -> None:
    """Each rank steps its part; the states, collected from all ranks, go on in one plain optimizer."""
    options = OPTIONS[optimizer_name]
    runs, states = [], []
    for module in MODULES.values():
        model = data_parallel(network())
        optimizer = ZeroRedundancyOptimizer(
            model.parameters(),
            optimizer_class=getattr(module, optimizer_name),
            parameters_as_bucket_view=bucket_view,
            **options,
        )
        train(model, optimizer, range(STEPS))
        optimizer.consolidate_state_dict(to=0)
        state = [deepcopy(optimizer.state_dict()) if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(state)
        states.append((whole(model), state[0]))
        train(model, optimizer, range(STEPS, 2 * STEPS))
        runs.append((model, optimizer))
    (mine, optimizer), (reference, _) = runs
    resumed = [
        resume_plainly(getattr(torch.optim, optimizer_name), options, *states[0]),
        resume_plainly(getattr(torchopt_course, optimizer_name), options, *states[1]),
    ]
    assert_fused(optimizer.optim)
    for model in (mine, *resumed):
        for (name, param), twin in zip(model.named_parameters(), reference.parameters(), strict=True):
            assert_close(param.detach(), twin.detach(), name)


def resume_plainly(
    optimizer_class: type[Optimizer], options: dict[str, Any], parameters: dict[str, Tensor], state: Any
) -> nn.Module:
    model = data_parallel(network())
    model.load_state_dict(parameters)
    optimizer = optimizer_class(model.parameters(), **options)
    optimizer.load_state_dict(state)
    train(model, optimizer, range(STEPS, 2 * STEPS))
    return model


def save(kind: str, optimizer_name: str, directory: Path) -> None:
    """Train, save, go on: torch's end is what those who load must reach."""
    prepare, share, how = KINDS[kind]
    runs = []
    for by, module in MODULES.items():
        model = prepare(network())
        optimizer = getattr(module, optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
        train(model, optimizer, range(STEPS), share=share)
        state = get_state_dict(model, optimizer, options=how)
        dcp.save(
            dict(zip(("model", "optimizer"), state, strict=True)),
            checkpoint_id=directory / f"{kind}-{optimizer_name}-{by}",
        )
        train(model, optimizer, range(STEPS, 2 * STEPS), share=share)
        runs += [model, optimizer]
    end = whole(runs[2])
    assert_moved(end)
    if dist.get_rank() == 0:
        torch.save(end, directory / f"{kind}-{optimizer_name}.pt")
    assert_same(*runs)
    assert_fused(runs[1])


def load(kind: str, optimizer_name: str, saved_by: str, loaded_by: str, directory: Path) -> None:
    """What four processes saved goes on in two, in the same trajectory."""
    prepare, share, how = KINDS[kind]
    model = prepare(network())
    optimizer = getattr(MODULES[loaded_by], optimizer_name)(model.parameters(), **OPTIONS[optimizer_name])
    state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer, options=how), strict=True))
    dcp.load(state, checkpoint_id=directory / f"{kind}-{optimizer_name}-{saved_by}")
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=how,
    )
    train(model, optimizer, range(STEPS, 2 * STEPS), share=share)
    got, expected = whole(model), torch.load(directory / f"{kind}-{optimizer_name}.pt")
    for name, value in expected.items():
        assert_close(got[name], value, name)
    if loaded_by == "ours":
        assert_fused(optimizer)


# How the network is divided, whether the batch is, and what the checkpoint looks like.
KINDS: dict[str, tuple[Prepare, bool, StateDictOptions]] = {
    "fully_shard": (sharded, True, StateDictOptions()),
    "tensor-parallel": (tensor_parallel, False, StateDictOptions(flatten_optimizer_state_dict=True)),
}


def one_plan(prepare: Prepare, dtypes: tuple[torch.dtype, ...]) -> None:
    """A plan for each dtype that the network has had, not for each step; what is pruned or moved is gone."""
    model = prepare(network())
    optimizer = torchopt_course.Adam(model.parameters())
    made, decide = [0], Group._decide

    def counted(group: Group, *arguments: Any) -> None:
        made[0] += 1
        decide(group, *arguments)

    Group._decide = counted  # type: ignore[method-assign]
    try:
        for plans, dtype in enumerate(dtypes, 1):
            model.to(dtype)
            for step in range(50):
                inputs = torch.randn(4, 6, dtype=dtype, generator=torch.Generator().manual_seed(step))
                model(inputs).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            assert made[0] == plans, f"{made[0]} plans"
    finally:
        Group._decide = decide  # type: ignore[method-assign]
    assert_fused(optimizer)
    for state in optimizer.state.values():
        for name in state:
            kept = weakref.ref(local(state[name]))
            whole_state = weakref.ref(state[name])
            state[name] = state[name].clone()
            assert whole_state() is None, f"state {name} is kept"
            assert kept() is None, f"the shard of state {name} is kept"


class Lamb(torchopt_course.ElementwiseOptimizer):
    """p -= lr * |p| / |u| * u (You et al., 2020): norms of whole tensors, wherever their parts are."""

    states = ("exp_avg", "exp_avg_sq")

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def coefficients(step: float, lr: float) -> dict[str, float]:
        return {"lr": lr, "unbias": 1 - 0.9**step}

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any) -> Any:
        exp_avg = 0.9 * exp_avg + 0.1 * g
        exp_avg_sq = 0.99 * exp_avg_sq + 0.01 * g * g
        u = exp_avg / unbias / (torch.sqrt(exp_avg_sq) + 1e-6)
        return p - lr * p.norm() / u.norm() * u, exp_avg, exp_avg_sq


class Prodigious(Prodigy):
    """Numbers of all tensors, wherever their parts are, and an option that each step renews."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        super().__init__(params, d0=0.01)


class OfRows(Lamb):
    """Numbers of rows and columns, which are cut by any of the ways to distribute a tensor."""

    @staticmethod
    def rule(p: Any, g: Any, exp_avg: Any, exp_avg_sq: Any, lr: Any, unbias: Any) -> Any:
        exp_avg = 0.9 * exp_avg + 0.1 * (g - xp.mean(g, over="row"))
        exp_avg_sq = exp_avg_sq + xp.max(g, over="column") * xp.norm(p, over="row")
        u = exp_avg / unbias / xp.norm(exp_avg, over="all")
        size = 1 + xp.norm(u, over="column") + exp_avg_sq**2 + xp.max(g) ** 2  # of all, empty shards too
        return p - lr * u / size, exp_avg, exp_avg_sq


def no_number_of_a_part() -> None:
    """Of what ZeroRedundancyOptimizer gives it no rank can make a number of all tensors."""
    refusal = "none: it would be a number of a part"
    try:
        ZeroRedundancyOptimizer(network().parameters(), optimizer_class=Prodigious)
    except RuntimeError as error:
        refusal = str(error)
    assert "Prodigious looks at all tensors together" in refusal, refusal


def whole_tensors(prepare: Prepare, share: bool, optimizer: Callable[..., Optimizer]) -> None:
    """A rule that needs whole tensors takes the same steps on distributed ones."""
    models = [prepare(network()), network()]
    for model, mine in zip(models, (share, False), strict=True):
        train(model, optimizer(model.parameters()), range(STEPS), share=mine)
    got, expected = map(whole, models)
    assert_moved(expected)
    for (name, value), twin in zip(got.items(), expected.values(), strict=True):
        assert_close(value, twin, name)


def scenarios(processes: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    for name in ("SGD", "Adam"):
        yield f"DistributedDataParallel {name}", partial(agree_with_torch, name, data_parallel, True)
        yield f"fully_shard, offloaded {name}", partial(agree_with_torch, name, offloaded, True)
        yield f"half tensor-parallel {name}", partial(agree_with_torch, name, half_tensor_parallel, False)
        yield f"ZeroRedundancyOptimizer {name}", partial(zero_redundancy, name, name == "Adam")
    if processes == 4:
        both = torch.float64, torch.float32, torch.float64
        yield (
            "one plan, fully_shard",
            lambda _: one_plan(sharded, both[:1]),
        )  # it does not survive another dtype
        for name, prepare in {"tensor-parallel": tensor_parallel, "half": half_tensor_parallel}.items():
            yield f"one plan, {name}", lambda _, prepare=prepare: one_plan(prepare, both)
        for name, (prepare, share) in {
            "fully_shard": (sharded, True),
            "tensor-parallel": (tensor_parallel, False),
            "half": (half_tensor_parallel, False),
        }.items():
            for rule in (Lamb, Adafactor, Prodigious, OfRows):
                yield (
                    f"whole tensors, {name} {rule.__name__}",
                    lambda _, p=prepare, s=share, r=rule: whole_tensors(p, s, r),
                )
        yield "tensor-parallel and fully_shard Adam", partial(agree_with_torch, "Adam", divided_twice, False)
        yield "ZeroRedundancyOptimizer, numbers of several tensors", lambda _: no_number_of_a_part()
    else:
        for name, what in itertools.product(("SGD", "Adam"), ("gradients", "states")):
            yield f"tensor-parallel {name}, {what} placed otherwise", partial(placed_otherwise, name, what)
        for by, name in itertools.product(MODULES, ("SGD", "Adam")):  # without states and with
            yield (
                f"tensor-parallel {name} of {by} between forward and backward",
                partial(stale_backward, by, name),
            )
    for kind, optimizers in {"fully_shard": tuple(OPTIONS), "tensor-parallel": ("SGD", "Adam")}.items():
        for name in optimizers:
            if processes == 4:
                yield f"{kind} {name}, saved", partial(save, kind, name)
            else:
                yield f"{kind} {name}", partial(agree_with_torch, name, *KINDS[kind][:2])
                for by, to in (("ours", "ours"), ("ours", "torch"), ("torch", "ours")):
                    yield f"{kind} {name}, saved by {by}, loaded by {to}", partial(load, kind, name, by, to)


def main(directory: Path) -> int:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=40))
    processes, rank = dist.get_world_size(), dist.get_rank()
    with (directory / f"{processes}-{rank}.jsonl").open("w", buffering=1) as report:
        for name, run in scenarios(processes):
            outcome, alive = "ok", True
            try:
                run(directory)
            except AssertionError:
                outcome = traceback.format_exc()
            except BaseException:  # as torch.distributed.checkpoint raises
                # The other ranks now wait for this one: no later scenario can be trusted, torchrun ends them.
                outcome, alive = traceback.format_exc(), False
            print(json.dumps([name, outcome]), file=report)
            if not alive:
                return 1
    dist.destroy_process_group()
    return 0


def in_a_process(directory: Path, output: Path) -> None:
    """All of it, with what is said in a file."""
    with open(output, "a", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    end(main(directory))


def end(code: int) -> None:
    """Without waiting for gloo's threads."""
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main(Path(sys.argv[1])))
