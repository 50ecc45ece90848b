"""What a rule reads besides its arguments is never stale in another process, which takes the same kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers import run_python

PROGRAM = """
import sys, numpy as np, numba, torch, torchopt_course as oc
import config
FACTOR = np.float32(config.K)
ARRAY = np.full((), config.K)
@numba.njit
def helper(x):
    return {k} * x
class Base(oc.ElementwiseOptimizer):
    @staticmethod
    def coefficients(lr): return dict(lr=lr)
class Module(Base):
    @staticmethod
    def rule(p, g, lr): return p - config.K * g
class Numpy(Base):
    @staticmethod
    def rule(p, g, lr): return p - FACTOR * g
class Array(Base):
    @staticmethod
    def rule(p, g, lr): return p - float(ARRAY) * g
class Helper(Base):
    @staticmethod
    def rule(p, g, lr): return p - helper(g)
class Indirect(Base):
    @staticmethod
    def rule(p, g, lr): return p - config.helper(g)
for cls in (Module, Numpy, Array, Helper, Indirect):
    weights = torch.nn.Parameter(torch.zeros(2)); weights.grad = torch.ones(2)
    cls([weights], dict(lr=1.0)).step()
    print(weights[0].item(), end=" ")
"""


@pytest.mark.slow
def test_no_process_runs_the_code_of_yesterday(tmp_path: Path) -> None:
    """Of numbers in modules, of numpy's, of arrays, of helpers that numba compiles."""
    for k in (1.0, 5.0):
        (tmp_path / "config.py").write_text(f"K = {k}\ndef helper(x):\n    return K * x\n")
        program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.dont_write_bytecode = True\n"
        run = run_python(program + PROGRAM.format(k=k), NUMBA_CACHE_DIR=str(tmp_path / "cache"))
        assert run.returncode == 0, run.stderr[-2000:]
        assert [float(word) for word in run.stdout.split()] == [-k] * 5
