"""Adam, Lion and LAMB as gradient transformations of optax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def scale_by_adam(betas: Any = (0.9, 0.999), eps: float = 1e-8) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        m, v = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return jnp.zeros([], jnp.int32), m, v

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        step, m, v = state
        step = step + 1
        m = jax.tree.map(lambda m, g: betas[0] * m + (1 - betas[0]) * g, m, grads)
        v = jax.tree.map(lambda v, g: betas[1] * v + (1 - betas[1]) * g * g, v, grads)
        first, second = (1 - beta**step for beta in betas)
        updates = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v / second) + eps), m, v)
        return updates, (step, m, v)

    return optax.GradientTransformation(init, update)


def adam(lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.chain(scale_by_adam(betas, eps), optax.scale_by_learning_rate(lr))


def lion(
    lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0
) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads: Any, m: Any, params: Any = None) -> Any:
        updates = jax.tree.map(lambda m, g: jnp.sign(betas[0] * m + (1 - betas[0]) * g), m, grads)
        return updates, jax.tree.map(lambda m, g: betas[1] * m + (1 - betas[1]) * g, m, grads)

    return optax.chain(
        optax.GradientTransformation(init, update),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(lr),
    )


def lamb(
    lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.01
) -> optax.GradientTransformation:
    return optax.chain(
        scale_by_adam(betas, eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(lr),
    )


class Stepping:
    """A compiled step over fixed gradients, its arrays given back to the next one."""

    def __init__(
        self,
        make: Callable[..., Any],
        values: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        options: dict[str, Any],
    ) -> None:
        transformation = make(**options)
        self.params = [jnp.array(value) for value in values]
        self._grads = [jnp.array(grad) for grad in grads]
        self._state = transformation.init(self.params)

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._step = jax.jit(step, donate_argnums=(0, 1))

    def __call__(self) -> None:
        self.params, self._state = self._step(self.params, self._state, self._grads)
        jax.block_until_ready(self.params)
