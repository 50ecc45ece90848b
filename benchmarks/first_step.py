"""Prints how many seconds the first ``step()`` of this process took: Adam on LeNet, after all imports.

``python -m benchmarks.first_step cuda``: on a GPU, until it has done it.
"""

from __future__ import annotations

import sys
from time import perf_counter

import torch
from torch import nn

import torchopt_course

from .workloads import MODELS, random_parameters


def main(device: str = "cpu") -> None:
    params = [
        nn.Parameter(param.detach().to(device)) for param in random_parameters(MODELS["lenet"].shapes())
    ]
    for param in params:
        param.grad = 1e-2 * torch.ones_like(param)
    optimizer = torchopt_course.Adam(params)
    if device == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    print(perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
