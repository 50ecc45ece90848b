"""How a rule is run. Nothing here knows any optimizer by name.

:mod:`.tracing` reads a rule, once, into a :mod:`.program`; each engine says that in its own language.

===========  ========================================================================================
``eager``    torch operations, one tensor at a time: every dtype and device; the reference
``cpu``      one fused pass over all float32 or float64 tensors of a group, compiled by numba
===========  ========================================================================================

:mod:`.plan` decides which engine takes which tensor, and says why not the faster one.
"""
