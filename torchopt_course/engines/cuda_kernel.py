"""From a rule to a Triton kernel: the loop around it as source text, and the rule as Triton can read it."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from .compiler import CompilationError
from .rules import Rule, Variant, bind

# What is stored, and what it is computed in: names of ``triton.language``.
DTYPES = {
    torch.float32: ("float32", "float32"),
    torch.float64: ("float64", "float64"),
    torch.bfloat16: ("bfloat16", "float32"),
    torch.float16: ("float16", "float32"),
}
# Elements that a program of the launch computes at a time: eight for each thread of four warps.
BLOCK = 1024


class Kernel:
    """A function for Triton, compiled before its first launch: what fails then has changed nothing."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._is_ready = False

    def make_ready(self, *arguments: Any) -> None:
        """Compile it for arguments of these kinds.

        Raises:
            CompilationError: with the compiler's words.
        """
        if not self._is_ready:
            try:
                self._function.warmup(*arguments, grid=(1,), BLOCK=BLOCK, num_warps=4)
            except Exception as error:  # Triton fails in many ways; all of them mean the same here
                reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[-1]
                raise CompilationError(f"Triton cannot compile the rule: {reason}") from error
            self._is_ready = True

    def launch(self, programs: int, *arguments: Any) -> None:
        self._function[(programs,)](*arguments, BLOCK=BLOCK, num_warps=4)


@cache
def kernel(
    variant: Variant,
    on_device: tuple[str, ...],
    dtype: torch.dtype,
    step_dtype: torch.dtype | None,
    width: int,
    *,
    scaled: int,
    aligned: bool,
) -> Kernel:
    """The kernel for a variant of a rule; its arguments are the pointers and then the numbers.

    Args:
        on_device: the coefficients that are read from the device, one row for each parameter.
        step_dtype: of the step count on the device that the kernel increments, if there is one.
        width: of the table of addresses.
        scaled: 1: the kernel gets ``found_inf``; 2: ``found_inf`` and ``grad_scale``.
        aligned: whether all addresses are multiples of 16 bytes.

    Raises:
        CompilationError: Triton is not installed, or cannot read the rule.
    """
    try:
        import triton
        import triton.language as tl

        from .namespaces import triton as xp
    except ImportError as error:
        raise CompilationError(f"Triton cannot be imported: {error}") from error
    text = kernel_source(variant, on_device, dtype, step_dtype, width, scaled=scaled, aligned=aligned)
    rule = variant.formula.rule
    try:
        bound = bind(rule, xp, _jit, number=tl.constexpr, extra={"tl": tl})
        compiled = triton.jit(_from_text(text, "kernel", {"tl": tl, "rule": bound}))
    except (OSError, TypeError, ValueError, SyntaxError) as error:  # a rule without source, from a prompt
        raise CompilationError(f"Triton cannot read {rule.__qualname__}: {error}") from error

    return Kernel(compiled)


def kernel_source(
    variant: Variant,
    on_device: tuple[str, ...],
    dtype: torch.dtype,
    step_dtype: torch.dtype | None,
    width: int,
    *,
    scaled: int,
    aligned: bool,
) -> str:
    """One program of the launch: its entry of the work list, block by block, read, apply, write."""
    stored, real = DTYPES[dtype]
    written = ["p", *(f"state_{name}" for name in variant.states)]
    tensors = ["p", "g", *written[1:]]
    on_host = [name for name in variant.scalars if name not in on_device]
    scaling = ["found_inf", "grad_scale"][:scaled]
    signature = [
        *("table", "work", *(["numbers"] if on_device else []), *scaling),
        *(f'number_{name}: "fp64"' for name in on_host),
        "BLOCK: tl.constexpr",
    ]
    arguments = ", ".join(variant.arguments(state="state_{}", number="number_{}"))
    pointer = f"(tl.load(table + row * {width} + {{}}) + offset).to(tl.pointer_type(tl.{stored}))"
    if aligned:
        pointer = f"tl.multiple_of({pointer}, 16)"
    lines = [
        f"def kernel({', '.join(signature)}):",
        "    entry = work + 3 * tl.program_id(0)",
        "    row, offset, n = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)",
        # `full` takes what both the compiler and the interpreter make of a Python number.
        *(f"    number_{name} = tl.full((), number_{name}, tl.{real})" for name in on_host),
        *(
            f"    number_{name} = tl.load(numbers + row * {len(on_device)} + {c}).to(tl.{real})"
            for c, name in enumerate(on_device)
        ),
        "    alive = 1",
    ]
    if scaling:
        lines += ["    alive = tl.where(tl.load(found_inf) == 0, 1, 0)", "    n = n * alive"]
    lines += [
        *(f"    at_{name} = {pointer.format(c)}" for c, name in enumerate(tensors)),
        "    whole = n // BLOCK * BLOCK",
        "    for start in range(0, whole, BLOCK):",
        "        i = start + tl.arange(0, BLOCK)",
        *_block(variant, arguments, real, "grad_scale" in scaling, ""),
        # Only the rest is masked: a mask would keep the compiler from loading 16 bytes at a time.
        "    if whole < n:",
        "        i = whole + tl.arange(0, BLOCK)",
        *_block(variant, arguments, real, "grad_scale" in scaling, ", mask=i < n"),
    ]
    if step_dtype is not None:
        step = f"tl.load(table + row * {width} + {width - 1})"
        kind = str(step_dtype).removeprefix("torch.")
        lines += [
            "    if offset == 0:",
            f"        at_step = {step}.to(tl.pointer_type(tl.{kind}))",
            "        tl.store(at_step, tl.load(at_step) + alive)",
        ]
    return "\n".join(lines) + "\n"


def _block(variant: Variant, arguments: str, real: str, unscale: bool, mask: str) -> list[str]:
    """Read, apply, write one block, whose elements are at ``i``."""
    written = ["p", *(f"state_{name}" for name in variant.states)]
    gradient = "-g" if variant.maximize else "g"
    call = f"rule({', '.join(['p', gradient, *([arguments] if arguments else [])])})"
    lines = [
        f"{name} = tl.load(at_{name} + i{mask}{', other=0' if mask else ''}).to(tl.{real})"
        for name in ["p", "g", *written[1:]]
    ]
    if unscale:
        lines += ["g = g * (1.0 / tl.load(grad_scale))", f"tl.store(at_g + i, g{mask})"]
    lines.append(f"{', '.join(variant.results('new_{}'))} = {call}")
    lines += [f"tl.store(at_{n} + i, new_{n.removeprefix('state_')}{mask})" for n in written]
    return [f"        {line}" for line in lines]


def _jit(function: Rule) -> Any:
    """A rule or a helper of it for Triton, which compiles from source and stumbles over annotations."""
    import triton

    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{function.__qualname__} is not defined by a `def`")
    _Operators().visit(tree)
    tree.decorator_list, tree.returns = [], None
    for argument in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs):
        argument.annotation = None
    # What the function closes over becomes global to it, as the numbers that it names.
    closed = inspect.getclosurevars(function).nonlocals
    text = ast.unparse(ast.fix_missing_locations(tree))
    return triton.jit(_from_text(text, tree.name, {**function.__globals__, **closed}))


class _Operators(ast.NodeTransformer):
    """Triton has no ``+x`` and no ``**``: whole and half exponents become what they mean."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.UAdd) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        from .namespaces.triton import ROOTS

        self.generic_visit(node)
        try:
            exponent = ast.literal_eval(node.right)
        except ValueError:
            return node
        if not isinstance(node.op, ast.Pow):
            return node
        if exponent in ROOTS:
            return self._call(ROOTS[exponent], node.left)
        if isinstance(exponent, int) and exponent >= 1:
            return self._call("whole_power", node.left, node.right)
        return node

    @staticmethod
    def _call(name: str, *arguments: ast.expr) -> ast.Call:
        function = ast.Attribute(ast.Name("xp", ast.Load()), name, ast.Load())
        return ast.Call(function, list(arguments), [])


def _from_text(text: str, name: str, names: dict[str, Any]) -> Callable[..., Any]:
    """Define a function whose source can be looked up, which is how Triton gets it."""
    file = f"<torchopt_course {name} {hash(text):x}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    names = {"__name__": __name__, **names}
    exec(compile(text, file, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names[name]
    return function
