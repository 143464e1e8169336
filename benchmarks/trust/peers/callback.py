"""A target's likelihood for JAX: called back in torch, with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def call_back(values: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], dim: int) -> Callable[[Any], Any]:
    """A differentiable function of one point (dim,), which may be mapped over, from one of (N, dim) with gradients."""
    import jax
    import jax.numpy as jnp

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(x, dtype=float)
        value, slope = values(x.reshape(-1, dim))
        return value.reshape(x.shape[:-1]), slope.reshape(x.shape)

    def ask(x: Any) -> tuple[Any, Any]:
        shapes = jax.ShapeDtypeStruct(x.shape[:-1], jnp.float64), jax.ShapeDtypeStruct(x.shape, jnp.float64)
        return jax.pure_callback(both, shapes, x, vmap_method="broadcast_all")

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return ask(x)[0]

    f.defvjp(ask, lambda slope, pull: (slope * pull,))
    return f
