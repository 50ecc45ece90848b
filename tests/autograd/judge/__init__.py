"""The judge: torch's own data bases of operators and modules, run through this autograd and through torch's.

``python -m tests.autograd.judge`` runs all of it and writes docs/autograd_operators.md; with names behind it,
only those: ``python -m tests.autograd.judge nn.functional.conv2d cumprod nn.LSTM``.
"""
