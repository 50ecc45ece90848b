"""How fast the optimizers are on this machine, next to torch's own: ``python -m benchmarks --help``."""
