"""Threads and processes: the same bits whatever their number, and no deadlock after a fork."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import torchopt_course as oc
from torchopt_course.engines.native import frame
from torchopt_course.engines.native import step as native
from torchopt_course.engines.native.update import GIL_FREE_FROM

from ..helpers import NAMES, engines_used, ours, run_python

LARGE = 400_003  # above the size from which a step is shared between threads


def trajectory(name: str, threads: int) -> list[torch.Tensor]:
    torch.set_num_threads(threads)
    params = [nn.Parameter(torch.linspace(-1, 1, n)) for n in (LARGE, 17, 70_001)]
    optimizer = ours(name)(params, lr=0.01, weight_decay=0.01, fused=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    return [param.detach() for param in params]


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_with_any_number_of_threads(name: str) -> None:
    alone = trajectory(name, 1)
    for threads in (2, 3, 5):
        assert all(map(torch.equal, alone, trajectory(name, threads)))


def test_several_threads_are_really_used() -> None:
    """By torch's own pool: those of its threads that work get older."""
    torch.set_num_threads(3)
    param = torch.nn.Parameter(torch.zeros(3_000_000))
    param.grad = torch.ones_like(param)
    optimizer = ours("SGD")([param], lr=0.1)
    optimizer.step()
    before = processor_times()
    for _ in range(200):
        optimizer.step()
    after = processor_times()
    assert sum(after[thread] > before[thread] for thread in before) >= 2


def processor_times() -> dict[str, int]:
    """Of each thread of this process, in hundredths of a second."""
    return {
        task.name: int((task / "stat").read_text().rpartition(")")[2].split()[11])
        for task in Path("/proc/self/task").iterdir()
    }


def test_two_threads_step_two_optimizers() -> None:
    expected = trajectory("Adam", 1)
    torch.set_num_threads(2)
    results: list[list[torch.Tensor]] = [[], []]

    def work(i: int) -> None:
        results[i] = trajectory("Adam", 2)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive(), "deadlock"
    for result in results:
        assert all(map(torch.equal, expected, result))


def in_child(work) -> int:  # type: ignore[no-untyped-def]
    """Run in a forked process; its exit code, or -1 if it hangs."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_steps_an_optimizer_that_was_stepped_with_threads_before() -> None:
    """The child has torch's pool but none of its threads."""
    torch.set_num_threads(2)
    weights = nn.Parameter(torch.linspace(-1, 1, LARGE))
    optimizer = oc.Adam([weights], lr=0.01, fused=True)
    weights.grad = torch.ones(LARGE)
    optimizer.step()
    before = weights.detach().clone()

    def work() -> None:
        # Large torch operations would hang here: OpenMP's pool does not survive a fork. A step does it alone.
        first = weights[0].item()
        optimizer.step()
        assert weights[0].item() != first
        assert engines_used(optimizer)["cpu"] == 1

    assert in_child(work) == 0
    assert torch.equal(weights.detach(), before), "the child's memory is its own"
    optimizer.step()


class Steps(Dataset[torch.Tensor]):
    """A data set whose items are the result of training: it steps in the worker process."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        weights = nn.Parameter(torch.zeros(3))
        optimizer = oc.SGD([weights], lr=1.0, fused=True)
        weights.grad = torch.full((3,), float(index))
        optimizer.step()
        return weights.detach()


def test_forked_data_loader_workers() -> None:
    """While the main process trains, and each worker with an optimizer of its own."""
    trajectory("SGD", 2)
    batches = list(
        DataLoader(Steps(), batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=60)
    )
    assert torch.equal(torch.cat(batches)[:, 0], -torch.arange(4.0))


# In a process of its own, which ends or hangs where something is wrong; one for both, as starting takes long.
PROGRAM = """
import threading, time, torch, torchopt_course as oc
from torchopt_course.engines.native import step as native
native.make_ready()
params = [torch.nn.Parameter(torch.ones(50_000)) for _ in range(3)]
twins = [torch.nn.Parameter(torch.ones(50_000)) for _ in range(3)]
optimizer, alone = oc.Adam(params, lr=1e-2, fused=True), oc.Adam(twins, lr=1e-2, fused=True)
for param in params + twins:
    param.grad = torch.ones_like(param)

def work():
    group = optimizer.param_groups[0]
    for step in range(50):
        if step % 10 == 0:
            group["fused"] = None if group["fused"] else True  # planned anew
        optimizer.step()

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for _ in range(200):
    alone.step()
count = optimizer.state[params[0]]["step"].item()
print([torch.equal(p, q) for p, q in zip(params, twins)], count, flush=True)

torch.set_num_threads(2)
def train():
    weights = torch.nn.Parameter(torch.ones(1_000_000))
    optimizer = oc.SGD([weights], lr=0.5, fused=True)
    for step in range(3):
        if step == 1:
            threading.main_thread().join()
            time.sleep(0.2)  # the interpreter closes its pools
        weights.grad = torch.ones_like(weights)
        optimizer.step()
    print("trained", weights.unique().tolist(), flush=True)
threading.Thread(target=train).start()
"""


@pytest.fixture(scope="module")
def said() -> list[str]:
    done = run_python(PROGRAM)
    return [*done.stdout.splitlines(), done.stderr]


def test_threads_that_step_one_optimizer_take_turns(said: list[str]) -> None:
    """What one thread has planned and prepared must not be used after another has planned anew."""
    assert said[0] == "[True, True, True] 200.0", said


def test_training_goes_on_after_the_main_thread_has_ended(said: list[str]) -> None:
    """Then Python starts no more threads."""
    assert said[1] == "trained [-0.5]", said


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("what", ["gradient", "state"])
def test_what_another_thread_drops_lives_until_the_kernel_is_through(what: str, prepared: bool) -> None:
    """A large kernel lets other threads run; torch's own operations hold what they are at."""
    native.make_ready()
    torch.set_num_threads(1)
    weights = nn.Parameter(torch.ones(GIL_FREE_FROM))
    optimizer = oc.Adam([weights], lr=0.01, fused=True)
    for _ in range(3):
        weights.grad = torch.ones_like(weights)
        optimizer.step()
    own = optimizer.state[weights]
    dropped = weakref.ref(weights.grad if what == "gradient" else own["exp_avg_sq"])
    alive = []

    def another_thread(*_: int) -> int:
        """Runs in the place of the kernel, as a thread could meanwhile."""
        if what == "gradient":
            weights.grad = None
        else:
            own["exp_avg_sq"] = own["exp_avg_sq"].clone()
        alive.append(dropped() is not None)
        return 0

    kernel = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 11)(another_thread)
    (bucket,) = optimizer._stepper.groups[0].buckets
    for words in (bucket.guards.frame, *bucket._kernels.values()):
        words[frame.KERNEL] = ctypes.cast(kernel, ctypes.c_void_p).value
    assert optimizer._stepper.prepared is not None
    if not prepared:
        optimizer._stepper.prepared = None
    optimizer.step()
    assert alive == [True]
    assert dropped() is None, "the step owns nothing"
