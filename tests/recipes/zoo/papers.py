"""The papers' algorithms once more, in plain torch and line by line: the truth that the zoo is compared with.

Written from the algorithm boxes. The zoo was also compared by hand with torch 2.14.1, pytorch_optimizer 4.1,
timm 1.0.31, optimi 0.3.3 and schedulefree 1.4.1 over 60 steps in float64: within 1e-14 of each (SAM within
1e-9), where pytorch_optimizer's ADOPT counts its clipping from the second step and decays nothing in the
first (as its authors' own does), its MADGRAD gets an lr less by eps, which it adds, and SOAP's and Muon's
peers compute in float64 what they bring to float32 and bfloat16. torch's NAdam has float32 in it: 2e-10.
An algorithm gets a tensor and gradients, and changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, log, prod, sqrt

import torch
from torch import Tensor

Gradients = Iterable[Tensor]
Paper = Callable[[Tensor, Gradients], None]


def lion(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    m = torch.zeros_like(x)
    for g in gradients:
        c = 0.9 * m + 0.1 * g
        x -= lr * (torch.sign(c) + decay * x)
        m = 0.99 * m + 0.01 * g


def adabelief(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    m, s = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16
        corrected_m, corrected_s = m / (1 - 0.9**t), s / (1 - 0.999**t)
        x *= 1 - lr * decay
        x -= lr * corrected_m / (corrected_s.sqrt() + 1e-16)


def adan(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    m, v, n, before = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x), None
    for t, g in enumerate(gradients, 1):
        change = torch.zeros_like(g) if before is None else g - before
        m = 0.98 * m + 0.02 * g
        v = 0.92 * v + 0.08 * change
        n = 0.99 * n + 0.01 * (g + 0.92 * change) ** 2
        rate = lr / ((n / (1 - 0.99**t)).sqrt() + 1e-8)
        x -= rate * (m / (1 - 0.98**t) + 0.92 * v / (1 - 0.92**t))
        x /= 1 + lr * decay
        before = g


def adopt(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients):
        if t == 0:
            v = g**2
            continue
        normed = (g / v.sqrt().clamp(min=1e-6)).clamp(-(t**0.25), t**0.25)
        m = 0.9 * m + 0.1 * normed
        x *= 1 - lr * decay
        x -= lr * m
        v = 0.9999 * v + 0.0001 * g**2


def ademamix(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1, warmup: int = 40) -> None:
    fast, slow, v = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        alpha = min(t * 5.0 / warmup, 5.0)
        a, b = log(0.9), log(0.9999)
        beta3 = min(exp(a * b / ((1 - t / warmup) * b + t / warmup * a)), 0.9999) if t < warmup else 0.9999
        fast = 0.9 * fast + 0.1 * g
        slow = beta3 * slow + (1 - beta3) * g
        v = 0.999 * v + 0.001 * g**2
        x *= 1 - lr * decay
        x -= lr * (fast / (1 - 0.9**t) + alpha * slow) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def yogi(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    m, v = torch.full_like(x, 1e-6), torch.full_like(x, 1e-6)
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = v - 0.001 * torch.sign(v - g**2) * g**2
        x *= 1 - lr * decay
        x -= lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-3)


def madgrad(x: Tensor, gradients: Gradients, lr: float = 1e-2) -> None:
    start, s, v = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
    for k, g in enumerate(gradients):
        weight = lr * sqrt(k + 1)
        s = s + weight * g
        v = v + weight * g**2
        z = start - s / (v.pow(1 / 3) + 1e-6)
        x.copy_(0.9 * x + 0.1 * z)


def schedule_free_adamw(
    y: Tensor, gradients: Gradients, lr: float = 2.5e-3, decay: float = 0.1, warmup: int = 10
) -> None:
    """With x, which is what is left when training ends."""
    x, z, v, weights = y.clone(), y.clone(), torch.zeros_like(y), []
    for t, g in enumerate(gradients, 1):
        rate = lr * min(1.0, t / warmup)
        weights.append(rate**2)
        v = 0.999 * v + 0.001 * g**2
        z = z - rate * (g / ((v / (1 - 0.999**t)).sqrt() + 1e-8) + decay * y)
        c = weights[-1] / sum(weights)
        x = (1 - c) * x + c * z
        y.copy_(0.9 * x + 0.1 * z)
    y.copy_(x)


def lamb(x: Tensor, gradients: Gradients, lr: float = 1e-3, decay: float = 0.01) -> None:
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-6)
        direction = r + decay * x
        length, own = direction.square().sum().sqrt().item(), x.square().sum().sqrt().item()
        x -= lr * (own / length if own and length else 1.0) * direction


def lars(x: Tensor, gradients: Gradients, lr: float = 1.0, decay: float = 1e-4) -> None:
    v = torch.zeros_like(x)
    for g in gradients:
        own, other = x.square().sum().sqrt().item(), g.square().sum().sqrt().item()
        local = 1e-3 * own / (other + decay * own + 1e-8) if own and other else 1.0
        v = 0.9 * v + local * (g + decay * x)
        x -= lr * v


def stable_adamw(x: Tensor, gradients: Gradients, lr: float = 1e-3, decay: float = 0.01) -> None:
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        beta1, beta2 = (
            0.9 * (1 - 0.9 ** (t - 1)) / (1 - 0.9**t),
            0.99 * (1 - 0.99 ** (t - 1)) / (1 - 0.99**t),
        )
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        rms = sqrt((g**2 / v.clamp(min=1e-12)).sum().item() / x.numel()) if x.numel() else 1.0
        rate = lr / max(1.0, rms)
        x *= 1 - rate * decay
        x -= rate * m / (v.sqrt() + 1e-6)


def nadam(x: Tensor, gradients: Gradients, lr: float = 2e-3, decay: float = 0.1) -> None:
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        mu = [0.9 * (1 - 0.5 * 0.96 ** (i * 4e-3)) for i in range(1, t + 2)]
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        ahead = mu[-1] * m / (1 - prod(mu)) + (1 - mu[-2]) * g / (1 - prod(mu[:-1]))
        x *= 1 - lr * decay
        x -= lr * ahead / ((v / (1 - 0.999**t)).sqrt() + 1e-8)


def adafactor(x: Tensor, gradients: Gradients, lr: float = 1e-2, decay: float = 0.1) -> None:
    """With the epsilons where torch has them; ``sum`` and ``outer`` as in the paper's algorithms 4 and 5."""
    eps = torch.finfo(x.dtype).eps
    rows = columns = square = torch.zeros(())
    for t, g in enumerate(gradients, 1):
        beta = 1 - t**-0.8
        if x.dim() < 2:
            square = beta * square + (1 - beta) * g**2
            estimate = square
        else:
            rows = beta * rows + (1 - beta) * g.square().sum(1) / max(1, x.shape[1])
            columns = beta * columns + (1 - beta) * g.square().sum(0) / max(1, x.shape[0])
            estimate = torch.outer(rows, columns) / (rows.sum() / max(1, len(rows))).clamp(min=eps)
        u = g / estimate.clamp(min=eps**2).sqrt()
        size, own = (sqrt(each.square().sum().item() / max(1, x.numel())) for each in (u, x))
        x *= 1 - lr * decay
        x -= max(1e-3, own) * min(lr, t**-0.5) * u / max(1.0, size)


def soap(x: Tensor, gradients: Gradients, lr: float = 3e-2, decay: float = 0.01, every: int = 7) -> None:
    """The bases of the first step by singular values; a vector is left as it is, by Adam."""
    m, s = torch.zeros_like(x), torch.zeros_like(x)
    is_turned = x.dim() == 2 and x.numel() > 0
    left, right = (torch.zeros(n, n, dtype=x.dtype) for n in (x.shape if is_turned else (0, 0)))
    p, q = left, right
    for t, g in enumerate(gradients):
        if t:
            m = 0.95 * m + 0.05 * g
            turned, turned_m = (p.T @ g @ q, p.T @ m @ q) if is_turned else (g, m)
            s = 0.95 * s + 0.05 * turned**2
            corrected_m, corrected_s = turned_m / (1 - 0.95**t), s / (1 - 0.95**t)
            # As everybody's program has it, the epsilon is divided by the root of the correction.
            step = corrected_m / (corrected_s.sqrt() + 1e-8 / sqrt(1 - 0.95**t))
            x -= lr * (p @ step @ q.T if is_turned else step)
            x *= 1 - lr * decay
        if not is_turned:
            continue
        left, right = 0.95 * left + 0.05 * g @ g.T, 0.95 * right + 0.05 * g.T @ g
        if t == 0:
            p, q = torch.linalg.svd(left)[0], torch.linalg.svd(right)[0]
        elif t % every == 0:
            rows, columns = (
                (b.T @ a @ b).diag().argsort(descending=True) for a, b in ((left, p), (right, q))
            )
            s = s[rows][:, columns]
            p, q = torch.linalg.qr((left @ p)[:, rows])[0], torch.linalg.qr((right @ q)[:, columns])[0]


def muon(x: Tensor, gradients: Gradients, lr: float = 0.02, decay: float = 0.1) -> None:
    """Its five iterations change the singular values and nothing else: here they are numbers."""
    b = torch.zeros_like(x)
    for g in gradients:
        b = 0.95 * b + 0.05 * g
        u, sigma, vh = torch.linalg.svd(0.05 * g + 0.95 * b, full_matrices=False)
        sigma = sigma / sigma.square().sum().sqrt()
        for _ in range(5):
            sigma = 3.4445 * sigma - 4.7750 * sigma**3 + 2.0315 * sigma**5
        x *= 1 - lr * decay
        x -= lr * max(1, x.shape[0] / x.shape[1]) ** 0.5 * u @ torch.diag(sigma) @ vh
