"""``python -m benchmarks.cuda``: on a GPU, ours beside torch's: inside a training loop first, then alone."""
