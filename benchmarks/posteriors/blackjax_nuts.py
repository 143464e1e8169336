"""BlackJAX's NUTS after its window adaptation, both with their defaults, four chains in one vectorised program."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job, start


def sample(name: str, job: Job) -> Drawn:
    """Cabezas et al. (2024); each chain adapts for itself, as in Stan."""
    import blackjax
    import jax
    import numpy as np
    from benchmarks.posteriors.densities import DENSITIES

    chains = job.chains or 4
    log_density, dim = DENSITIES[name]()
    adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)

    def chain(key: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        (state, parameters), warm = adaptation.run(first, z, num_steps=job.warmup)
        step = blackjax.nuts(log_density, **parameters).step

        def one(state, key):
            state, info = step(key, state)
            return state, (state.position, info.num_integration_steps)

        _, (draws, steps) = jax.lax.scan(one, state, jax.random.split(second, job.draws // chains))
        return draws, steps.sum() + warm.info.num_integration_steps.sum()

    keys = jax.random.split(jax.random.key(job.seed), chains)
    draws, steps = jax.jit(jax.vmap(chain))(keys, start(log_density, dim, chains, job.seed))
    return Drawn(np.asarray(draws), float(steps.sum()))
