"""Does the CUDA kernel of a formula compile? Triton's compiler answers without a GPU."""

from __future__ import annotations

import importlib.util

import torch

from ... import ElementwiseOptimizer
from .verdict import NotAsked, OptimizerError

# What the generated kernels call their pointers; all other arguments are numbers.
POINTERS = {
    "table": "*i64",
    "work": "*i64",
    "partials": "*fp64",
    "totals": "*fp64",
    "chunks": "*i64",
}
H100 = 90  # the compute capability, times ten


def compile_for_cuda(optimizer: ElementwiseOptimizer, dtype: torch.dtype) -> None:
    """Down to machine code for an H100, as in the first step of a parameter group.

    Raises:
        OptimizerError: with what Triton says.
        NotAsked: Triton is not installed, or interprets.
    """
    if importlib.util.find_spec("triton") is None:
        raise NotAsked("Triton is not installed")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ...engines.cuda import kernel as cuda_kernel

    if triton.knobs.runtime.interpret:
        raise NotAsked("Triton interprets in this process: TRITON_INTERPRET is set")
    group = optimizer.param_groups[0]
    values = optimizer._coefficients_after(group)(0)
    kept = optimizer._kept_states(group)
    specialization = optimizer._parsed_rule.specialize(kept, group["maximize"], values)
    stored = (dtype, dtype, *[dtype] * len(kept))
    try:
        made = []
        for number in (*range(len(specialization.searches)), None):
            given = specialization, (), stored, None, None
            of_stage = cuda_kernel.kernels(*given, counts_steps=True, scaled=0, aligned=True, number=number)
            made += of_stage[::2]  # every other one adds up: it is the same for all rules with reductions
        for function in (kernel._function for kernel in made):
            signature = {name: POINTERS.get(name, "fp64") for name in function.arg_names}
            signature["BLOCK"] = "constexpr"
            block = {(function.arg_names.index("BLOCK"),): cuda_kernel.BLOCK}
            source = ASTSource(function, signature, block)
            triton.compile(source, target=GPUTarget("cuda", H100, 32), options={"num_warps": 4})
    except Exception as error:  # Triton fails in many ways; all of them mean the same here
        reason = str(error.__cause__ or error).strip() or type(error).__name__
        raise OptimizerError(f"the CUDA kernel does not compile: {reason}") from error
