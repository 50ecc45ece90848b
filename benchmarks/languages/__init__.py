"""The same three optimizers, Adam, Lion and LAMB, written in four ways, and what a step of each takes.

:mod:`.ours`, :mod:`.plain` (torch, also behind ``torch.compile``), :mod:`.in_optax` and :mod:`.in_heavyball`
have them as a user of each would write them. ``python -m benchmarks.languages`` measures.
"""
