"""Does the CUDA kernel of a formula compile? Triton's compiler answers without a GPU."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from ...elementwise import ElementwiseOptimizer
from ...engines.cuda.compiled import BLOCK
from ...engines.cuda.of_step import OfStep
from ...engines.rule.parsed import Specialization
from .verdict import NotAsked, OptimizerError

# What the generated kernels call their pointers; all other arguments are numbers.
POINTERS = {
    **dict.fromkeys(("table", "work", "rows", "keys", "chunks"), "*i64"),
    **dict.fromkeys(("numbers", "partials", "totals"), "*fp64"),
    **dict.fromkeys(("found_inf", "grad_scale"), "*fp32"),
}
H100 = 90  # the compute capability, times ten


def compiled(
    specialization: Specialization,
    stored: tuple[torch.dtype, ...],
    *,
    on_device: tuple[str, ...] = (),
    rounding: str | None = None,
    step_dtype: torch.dtype | None = None,
    scaled: int = 0,
    aligned: bool = True,
    of_step: OfStep | None = None,
) -> list[Any]:
    """All kernels of a rule down to machine code for an H100, in the order in which a step launches them.

    No GPU is needed. Of what Triton gives, ``asm["ptx"]`` and ``asm["cubin"]`` are the program. The arguments
    are those of :func:`torchopt_course.engines.cuda.kernel.kernels`; ``on_device`` is for the update alone.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ...engines.cuda import kernel as cuda_kernel

    made = []
    for number in (*range(len(specialization.searches)), None):
        given = specialization, on_device if number is None else (), stored, rounding, step_dtype
        how = {"counts_steps": True, "scaled": scaled, "aligned": aligned, "number": number}
        made += cuda_kernel.kernels(*given, **how, of_step=of_step if number is None else None)
    if of_step is not None and step_dtype is not None:
        made.insert(0, cuda_kernel.counting_kernel(2 + len(stored), step_dtype, scaled=bool(scaled)))
    results = []
    for function in (kernel._function for kernel in made):
        signature = {name: POINTERS.get(name, "fp64") for name in function.arg_names} | {"BLOCK": "constexpr"}
        source = ASTSource(function, signature, {(function.arg_names.index("BLOCK"),): BLOCK})
        target, options = GPUTarget("cuda", H100, 32), {"num_warps": 4}
        results.append(triton.compile(source, target=target, options=options))
    return results


def compile_for_cuda(optimizer: ElementwiseOptimizer, dtype: torch.dtype) -> None:
    """The kernels of an optimizer, as in the first step of its first parameter group.

    Raises:
        OptimizerError: with what Triton says.
        NotAsked: Triton is not installed, or interprets.
    """
    if importlib.util.find_spec("triton") is None:
        raise NotAsked("Triton is not installed")
    import triton

    if triton.knobs.runtime.interpret:
        raise NotAsked("Triton interprets in this process: TRITON_INTERPRET is set")
    group = optimizer.param_groups[0]
    values = optimizer._coefficients_after(group)(0)
    kept = optimizer._kept_states(group)
    specialization = optimizer._parsed_rule.specialize(kept, group["maximize"], values)
    try:
        compiled(specialization, (dtype,) * (2 + len(kept)))
    except Exception as error:  # Triton fails in many ways; all of them mean the same here
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise OptimizerError(f"the CUDA kernel does not compile: {reason}") from error
