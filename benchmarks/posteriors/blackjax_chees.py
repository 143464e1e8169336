"""BlackJAX's ChEES-HMC with the ensemble's diagonal as its metric, 32 chains."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job, start


def sample(name: str, job: Job) -> Drawn:
    """Hoffman, Radul & Sountsov (2021); step size 0.1 to begin with and Adam at 0.025, as in the paper."""
    import blackjax
    import jax
    import numpy as np
    import optax
    from benchmarks.posteriors.densities import DENSITIES

    chains = job.chains or 32
    log_density, dim = DENSITIES[name]()
    warm = blackjax.chees_adaptation(log_density, chains, mass_matrix_estimation="diagonal")

    def whole(key: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        (states, parameters), info = warm.run(first, z, 0.1, optax.adam(0.025), job.warmup)
        step = jax.vmap(blackjax.dynamic_hmc(log_density, **parameters).step)

        def one(states, key):
            states, info = step(jax.random.split(key, chains), states)
            return states, (states.position, info.num_integration_steps)

        _, (draws, steps) = jax.lax.scan(one, states, jax.random.split(second, job.draws // chains))
        return draws, steps.sum() + info.info.num_integration_steps.sum()

    draws, steps = jax.jit(whole)(jax.random.key(job.seed), start(log_density, dim, chains, job.seed))
    return Drawn(np.asarray(draws).swapaxes(0, 1), float(steps))
