"""How a rule is run. Nothing here knows any optimizer by name.

A step, in eight lines:

1. ``optimizer.step()`` asks for the call that was prepared, :mod:`.prepared`. If all guards hold, this one
   call of compiled code is the step (eager and foreach then do their operations). Otherwise :mod:`.step`
   goes through the groups.
2. Each :mod:`.group` looks whether all is as it was planned: its options, and by :mod:`.guards` its tensors.
3. If not, it is planned anew: states are completed, and each parameter goes to the first engine below that
   does not refuse it, into a :mod:`.bucket`.
4. The coefficients are computed, the :mod:`.rule` (read once by :mod:`.rule.tracing` into a
   :mod:`.rule.program`) made into a kernel, by :mod:`.native` or Triton.
5. When everything is ready and nothing can fail any more, the buckets update their tensors in place.

===========  ========================================================================================
``cuda``     one launch for all tensors of a device and dtype, compiled by Triton
``cpu``      one fused pass over all tensors of one dtype in a group, compiled by numba
             (both: several for a rule that makes numbers of whole tensors, :mod:`.rule.sweeps`)
``foreach``  the program over lists of tensors, each operation one ``torch._foreach_*`` call
``eager``    the program as torch operations, one tensor at a time; the reference
===========  ========================================================================================

What is no plain tensor, or has no program, goes one by one through torch (:mod:`.operations.rest`).
"""

from __future__ import annotations

from .bucket import Bucket
from .cpu.bucket import CpuBucket
from .cuda.bucket import CudaBucket
from .operations.eager import EagerBucket
from .operations.foreach import ForeachBucket

# Fastest first. A parameter goes to the first that does not refuse it.
ENGINES: tuple[type[Bucket], ...] = (CudaBucket, CpuBucket, ForeachBucket, EagerBucket)
