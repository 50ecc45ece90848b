"""SAM: the gradient is taken where the loss near the weights is worst, and the step from where they are."""

import torch

from torchopt_course import SGD
from torchopt_course.validation import at_least_zero


class SAM(SGD):
    """SGD that seeks flat minima; each step takes two gradients, and so a closure.

    e = ρ g / ‖g‖                                 g = ∇f(θ), ‖g‖ over all parameters together
    θ ← SGD(θ, ∇f(θ + e))

    The closure computes the loss with gradients, as for LBFGS; it is called twice, and ``step`` returns the
    loss at θ. Every optimizer of the package will do in the place of SGD.

    Source: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, 2020,
        arXiv:2010.01412
    """

    def __init__(self, params, lr=1e-3, momentum=0.9, rho=0.05, **options):
        super().__init__(params, lr, momentum, **options)
        at_least_zero("rho", rho)
        self.defaults["rho"] = rho  # groups that come later have it from there
        for group in self.param_groups:
            group.setdefault("rho", rho)

    def step(self, closure):  # type: ignore[override]  # it cannot do without one
        with torch.enable_grad():
            loss = closure()
        pairs = [
            (p, group["rho"]) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = torch.nn.utils.get_total_norm([p.grad for p, _ in pairs])
        before = [p.detach().clone() for p, _ in pairs]
        with torch.no_grad():
            for p, rho in pairs:
                p.add_(p.grad * (rho / (norm + 1e-12)))
        try:
            with torch.enable_grad():
                closure()
        finally:  # exactly where they were, also where the closure fails
            with torch.no_grad():
                for (p, _), start in zip(pairs, before, strict=True):
                    p.copy_(start)
        super().step()
        return loss
