"""Schedule-free AdamW: an average of the weights in the place of a schedule that has to know the end."""

import torch
import torch as xp

from torchopt_course import ElementwiseOptimizer


class ScheduleFreeAdamW(ElementwiseOptimizer):
    """Three points: z takes the steps, x is their average, and y between them is where gradients are taken.

    s ← β₂ s + (1 - β₂) g²                        g = ∇f(y)
    d = g / (√ŝ + ε) + λ y
    z ← z - ηₜ d
    x ← (1 - c) x + c z                           c = ηₜ² / (η₁² + ... + ηₜ²)
    y = β₁ x + (1 - β₁) z

    The weights of the model are y while you train and x while you evaluate: call ``optimizer.eval()`` and
    ``optimizer.train()`` with those of the model, and ``eval()`` before weights are saved. ηₜ is η after
    `warmup_steps` of linear growth; c counts on an η that stays, for that is the point.

    Source: Defazio et al., The Road Less Scheduled, 2024, arXiv:2405.15682
    """

    states = ("z", "exp_avg_sq")

    def __init__(self, params, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, warmup_steps=0):
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, warmup_steps=warmup_steps)
        super().__init__(params, options | dict(train_mode=True))

    def initial_state(self, name, param, group):
        return param.clone() if name == "z" else super().initial_state(name, param, group)

    @staticmethod
    def coefficients(step, lr, betas, eps, weight_decay, warmup_steps, train_mode):
        if not train_mode:
            raise RuntimeError("the weights are those for evaluation: call optimizer.train() before step()")
        warm = min(1.0, step / warmup_steps) if warmup_steps else 1.0
        grown = min(step, warmup_steps)  # 1² + ... + n² = n (n + 1) (2 n + 1) / 6
        total = grown * (grown + 1) * (2 * grown + 1) / 6 / max(1, warmup_steps) ** 2 + step - grown
        share = warm**2 / total
        return dict(
            size=lr * warm, size_y=lr * warm * (1 - betas[0] * (1 - share)), share=share,
            unbias=(1 - betas[1] ** step) ** -0.5, fresh=1 - betas[1], eps=eps, l2=weight_decay,
        )  # fmt: skip

    @staticmethod
    def rule(p, g, z, exp_avg_sq, size, size_y, share, unbias, fresh, eps, l2):
        exp_avg_sq = exp_avg_sq + fresh * (g * g - exp_avg_sq)
        step = g / (unbias * xp.sqrt(exp_avg_sq) + eps) + l2 * p
        return p + share * (z - p) - size_y * step, z - size * step, exp_avg_sq

    def eval(self):
        self._move(False, lambda beta: 1 - 1 / beta)

    def train(self):
        self._move(True, lambda beta: 1 - beta)

    @torch.no_grad()
    def _move(self, train_mode, weight):
        for group in self.param_groups:
            if group["train_mode"] is not train_mode:
                for p in group["params"]:
                    if p in self.state:
                        p.lerp_(self.state[p]["z"], weight(group["betas"][0]))
                group["train_mode"] = train_mode
