"""Prints how many seconds the first ``step()`` of this process took: Adam on LeNet, after all imports."""

from __future__ import annotations

from time import perf_counter

import torchopt_course

from .workloads import MODELS, random_parameters

if __name__ == "__main__":
    optimizer = torchopt_course.Adam(random_parameters(MODELS["lenet"].shapes()))
    start = perf_counter()
    optimizer.step()
    print(perf_counter() - start)
