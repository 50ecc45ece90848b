"""How fast the optimizers are on this machine, next to torch's own and others'.

``python -m benchmarks --help`` (torch's, on the CPU), ``benchmarks.peers`` (other packages),
``benchmarks.cuda``, ``benchmarks.autograd``, ``benchmarks.gradient_checks``,
``benchmarks.schedulers``; ``benchmarks.readme`` writes the README's figures.
"""
