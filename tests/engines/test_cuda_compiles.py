"""Every CUDA kernel goes through Triton's real compiler, down to machine code for an H100. No GPU needed.

The interpreter takes Python for what it is; the compiler has types, and its own opinion of a program.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from torchopt_course.engines.native.compiler import CompilationError

from ..helpers import run_python

pytest.importorskip("triton")
from torchopt_course.engines.cuda import kernel as cuda_kernel

pytestmark = pytest.mark.cuda

# In a process of its own: in this one Triton may be interpreting.
PROGRAM = """
import json, torch
import torchopt_course as oc
from torchopt_course.transforms import clip_norm
from torchopt_course.engines.counted import Reader
from torchopt_course.engines.cuda.of_step import of_step
from torchopt_course.testing.optimizers import cuda
from tests.engines.test_cuda import OPTIONS, Softened

class Conditions(oc.ElementwiseOptimizer):
    states = ("m", "n")
    @staticmethod
    def coefficients(lr):
        return dict(lr=lr)
    @staticmethod
    def rule(p, g, m, n, lr):
        m = torch.where((g > 0) & ~(p <= lr) | (m != 1), 1.0, 0.1) + 0.3 * (g < m)
        return torch.clamp(p - lr**2 * g, max=torch.inf) + (1 + g**4) ** -0.5, torch.minimum(m, n), 0.0

class Reducing(oc.ElementwiseOptimizer):
    states = ("m", "n")
    @staticmethod
    def coefficients(lr):
        return dict(lr=lr)
    @staticmethod
    def rule(p, g, m, n, lr):
        m = m + torch.mean(g) * torch.max(torch.abs(g)) - torch.min(p)
        u = torch.where(torch.any(g > 0) & torch.all(m < 3), m, lr) / torch.norm(g - torch.mean(g))
        trust = torch.norm(p) / torch.norm(u)
        trust = torch.where(torch.isfinite(trust) & (trust > 0), trust, 1)
        return p - lr * trust * u, m, 0 * n + torch.count_nonzero(u)

class Skipping(oc.ElementwiseOptimizer):
    states = ("m",)

    @staticmethod
    def coefficients(lr):
        return dict(lr=lr)

    @staticmethod
    def rule(p, g, m, lr):
        largest = g.abs().max(over="group")
        norm = (g / largest).norm(over="all") * torch.norm(p)
        ok = torch.isfinite(g.sum(over="all"))
        return torch.where(ok & (g != 0), p - lr * g / norm, p), torch.where(ok, m + g, m)

def compiled(optimizer, dtype, on_device=(), scaled=0, aligned=True, state_dtype=None, rounding=None):
    group = optimizer.param_groups[0]
    values = optimizer._coefficients_after(group)(0)
    kept = optimizer._kept_states(group)
    specialization = optimizer._parsed_rule.specialize(kept, group["maximize"], values)
    how = dict(rounding=rounding, scaled=scaled, aligned=aligned)
    if on_device == "all numbers":
        how["on_device"] = specialization.program.numbers
    elif on_device:
        how |= dict(on_device=on_device, step_dtype=torch.float32)
    stored = (dtype, dtype, *[state_dtype or dtype] * len(kept))
    halves = [each for each in (stored[0], *stored[2:]) if each in (torch.bfloat16, torch.float16)]
    stored += tuple(halves) if rounding == "kahan" else ()
    made = cuda.compiled(specialization, stored, **how)
    assert all(len(kernel.asm["cubin"]) > 0 for kernel in made)
    text = made[-1].asm["ptx"]
    return {"loads": text.count("ld.global.v4"), "stores": text.count("st.global.v4"), "states": len(kept)}

param = torch.nn.Parameter(torch.ones(3))
results = {}
for name, options in OPTIONS:
    results[f"{name} {options}"] = compiled(getattr(oc, name)([param], **options), torch.float32)
    compiled(getattr(oc, name)([param], **options), torch.float64)
compiled(oc.Adam([param]), torch.bfloat16, ("number_step_size", "number_unbias"), scaled=2)
compiled(oc.Adam([param]), torch.float16, ("number_step_size", "number_unbias"), scaled=1, aligned=False)
for made in (oc.Adam([param]), oc.AdamW([param], transforms=[clip_norm(1.0)]), oc.Adagrad([param])):
    for dtype, step_dtype in ((torch.float32, torch.float32), (torch.bfloat16, torch.float64)):
        group = made.param_groups[0]
        counted, kept = Reader().now(made, group), made._kept_states(group)
        specialization = made._parsed_rule.specialize(kept, False, counted.coefficients)
        how = dict(of_step=of_step(counted.program, specialization.program), step_dtype=step_dtype, scaled=1)
        assert how["of_step"].lines
        assert len(cuda.compiled(specialization, (dtype,) * (2 + len(kept)), **how)) >= 2
for rounding in ("nearest", "stochastic", "kahan"):
    compiled(oc.Adam([param]), torch.float32, state_dtype=torch.bfloat16, rounding=rounding)
    compiled(oc.Adam([param]), torch.bfloat16, state_dtype=torch.float32, rounding=rounding)
    compiled(oc.Adam([param]), torch.float16, rounding=rounding)
compiled(Softened([param]), torch.float32)
compiled(Softened([param]), torch.float64)
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    compiled(Conditions([param], dict(lr=0.1)), dtype)
    compiled(Reducing([param], dict(lr=0.1)), dtype, scaled=2)
    for on_device in ((), "all numbers"):
        compiled(Skipping([param], dict(lr=0.1)), dtype, on_device, scaled=2)
print(json.dumps(results))
"""


def test_every_kernel_compiles_and_moves_16_bytes_at_a_time() -> None:
    result = run_python(PROGRAM)
    assert result.returncode == 0, result.stderr[-3000:]
    for case, counts in json.loads(result.stdout.splitlines()[-1]).items():
        # A block is 8 elements a thread: two loads of 16 bytes for each of p, g and the states.
        assert counts["loads"] == 2 * (2 + counts["states"]), case
        assert counts["stores"] == 2 * (1 + counts["states"]), case


def test_what_triton_cannot_compile_goes_to_another_engine_before_anything_is_changed() -> None:
    class Function:
        """Stands for what Triton makes of a rule, where there is no GPU to compile for."""

        launched = False

        def warmup(self, *arguments: Any, **options: Any) -> None:
            raise TypeError("unsupported")

        def __getitem__(self, grid: Any) -> None:
            self.launched = True

    function = Function()
    with pytest.raises(CompilationError, match=r"^Triton cannot compile the rule: unsupported$"):
        cuda_kernel.Kernel(function).ready(1, [torch.zeros(1)], 1.0, anywhere=False)
    assert not function.launched
