"""How a rule is run. Nothing here knows any optimizer by name.

:mod:`.tracing` reads a rule, once, into a :mod:`.program`; each engine says that in its own language.

===========  ========================================================================================
``cpu``      one fused pass over all tensors of one dtype in a group, compiled by numba
``cuda``     one launch for all tensors of a device and dtype, compiled by Triton
``foreach``  the program over lists of tensors, each operation one ``torch._foreach_*`` call
``eager``    torch operations, one tensor at a time: everything that torch can do; the reference
===========  ========================================================================================

:mod:`.plan` decides which engine takes which tensor, and says why not a faster one. It owns none of them:
before each step :mod:`.survey` looks whether all is still as planned. What no fused engine takes is
:mod:`.apart`.
"""
