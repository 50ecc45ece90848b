"""Machine code for the CPU engine: compiled by numba once, kept on disk, loaded without numba.

Numba's own cache would still cost each process the import of numba and its type system (0.8 s on a slow
machine). A kernel here takes only addresses and needs no run-time support, so its object code alone is
kept: loading it with llvmlite takes some 30 ms.

The file's name is a digest of everything the code depends on, the rule itself included, so what is found
under a name is right or does not exist; its content carries its own digest, so damage is noticed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import pkgutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

Address = int


class CompilationError(RuntimeError):
    """A function could not be compiled for this machine; the message says why."""


class NoWord(CompilationError):
    """A rule says what no kernel has a word for: nothing is amiss with the machine."""


_lock = threading.RLock()
_loaded: dict[str, Address] = {}
_kept_alive: list[object] = []  # JIT engines own the machine code; they live as long as the process
# Numba's native functions take two addresses first, where to put the return value and an exception. Ours
# return nothing and raise nothing: what all of them write there is never read.
_scratch = (ctypes.c_int64 * 16)()
_RETURN, _EXCEPTION = ctypes.addressof(_scratch), ctypes.addressof(_scratch) + 64


def native(name: str, inputs: str, build: Callable[[], Callable[..., Any]], arity: int) -> Address:
    """Return the address of ``build()`` as machine code: from this process, from disk, or compiled now.

    Args:
        name: for the file's name and for error messages.
        inputs: a text that determines what ``build`` returns; part of the digest.
        build: makes the Python function of ``arity`` 64-bit integers to compile. Called only to compile.

    Raises:
        CompilationError: numba is missing or broken, or cannot compile the function.
    """
    with _lock:
        address = known(name, inputs)
        if address is None:
            digest = _digest(inputs)
            address = _loaded[digest] = _compiled(name, digest, build, arity)
        return address


def known(name: str, inputs: str) -> Address | None:
    """As :func:`native`, if nothing needs to be compiled for it.

    Raises:
        CompilationError: numba is missing.
    """
    with _lock:
        # The check comes before the look on disk: whether numba is there must not depend on old files.
        if not _installed("numba"):
            raise CompilationError("numba is not installed (pip install numba)")
        digest = _digest(inputs)
        if digest not in _loaded and (address := _from_disk(name, digest)) is not None:
            _loaded[digest] = address
        return _loaded.get(digest)


def _digest(inputs: str) -> str:
    return hashlib.sha256("\0".join((inputs, _toolchain())).encode()).hexdigest()


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$NUMBA_CACHE_DIR``, or else the user's cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) / "torchopt_course"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


@cache
def _toolchain() -> str:
    """What turns the same source into other machine code: the versions, the processor, this file."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    numba_settings = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_CPU"))
    own_code = [pkgutil.get_data(__package__, file) for file in ("compiler.py", "intrinsics.py")]
    versions = version("numba"), version("llvmlite")
    return repr((versions, llvm.get_host_cpu_name(), features, numba_settings, own_code))


def _compiled(name: str, digest: str, build: Callable[[], Callable[..., Any]], arity: int) -> Address:
    try:
        import numba

        signature = numba.void(*[numba.int64] * arity)
        compiled = numba.njit(signature, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(
            build()
        )
        result = next(iter(compiled.overloads.values()))
        library, symbol = result.library, result.fndesc.llvm_func_name
        address = library.get_pointer_to_function(symbol)
    except Exception as error:  # numba fails in many ways; all of them mean the same here
        _refuse_to_swallow_ctrl_c(error)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CompilationError(f"numba cannot compile {name}: {' '.join(reason)[:400]}") from error
    needs = sorted(
        function.name
        for function in library._final_module.functions
        if function.is_declaration and not function.name.startswith("llvm.")
    )
    if any(symbol.startswith("NRT_") for symbol in needs):
        raise CompilationError(
            f"numba cannot compile {name} for single numbers: one of the functions in it makes arrays"
        )
    # What numba would make an exception of: nobody hears of one, and what comes after it would not be done.
    if any(".const.picklebuf" in each.name for each in library._final_module.global_variables):
        raise NoWord(f"{name} can raise an error in the middle, which compiled code cannot tell")
    _kept_alive.append(compiled)
    _keep_on_disk(name, digest, symbol, needs, library._get_compiled_object())
    return int(address)


def _refuse_to_swallow_ctrl_c(error: BaseException) -> None:
    """Python makes a RuntimeError of what is raised in ``__set_name__``; numba has many classes to import."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        cause = cause.__cause__ or cause.__context__


def callable_at(address: Address, arity: int, *, holds_gil: bool) -> Callable[..., object]:
    """What :func:`native` gave, for Python to call.

    Args:
        address, arity: the function.
        holds_gil: whether the function calls Python's C API; others let other threads run meanwhile.
    """
    prototype = ctypes.PYFUNCTYPE if holds_gil else ctypes.CFUNCTYPE
    function = prototype(ctypes.c_int32, *[ctypes.c_int64] * (arity + 2))(address)
    return partial(function, _RETURN, _EXCEPTION)


def _keep_on_disk(name: str, digest: str, symbol: str, needs: list[str], code: bytes) -> None:
    """Write the object code next to others of its kind, whole or not at all."""
    if not all(map(_resolves, needs)):
        return  # it needs numba's own library: such code is compiled anew in each process
    head = {"symbol": symbol, "needs": needs, "sha256": hashlib.sha256(code).hexdigest()}
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        try:
            with open(handle, "wb") as file:
                file.write(json.dumps(head).encode() + b"\n" + code)
            os.replace(unfinished, folder / f"{name}-{digest[:40]}.o")
        except BaseException:  # a full disk keeps no halves
            with suppress(OSError):
                os.unlink(unfinished)
            raise
    except (OSError, RuntimeError) as error:
        warn_once(f"compiled kernels cannot be kept on disk, each process compiles again: {error}")


def _from_disk(name: str, digest: str) -> Address | None:
    try:
        head_line, _, code = (cache_folder() / f"{name}-{digest[:40]}.o").read_bytes().partition(b"\n")
        head = json.loads(head_line)
        if hashlib.sha256(code).hexdigest() != head["sha256"] or not all(map(_resolves, head["needs"])):
            return None
        symbol = head["symbol"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: it is compiled and written again

    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept_alive.append(engine)
    return int(engine.get_function_address(symbol))


def _resolves(symbol: str) -> bool:
    """Whether this process has the C function: LLVM would end the process over a missing one."""
    try:
        return hasattr(ctypes.CDLL(None), symbol)
    except (OSError, TypeError):  # Windows has no list of all symbols
        return False


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warn of something that makes every step slower but not wrong, once in a process.

    What comes after the first colon, such as which rule it was, makes no new warning.
    """
    topic = message.partition(":")[0]
    if topic not in _warned:
        _warned.add(topic)
        warnings.warn(f"torchopt_course: {message}", RuntimeWarning, stacklevel=2)
