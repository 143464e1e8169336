"""emcee's stretch move with its defaults, four walkers a dimension, without gradients."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job, start

KEPT = 100_000
"""Draws that are kept of all; the walkers are thinned to that."""


def sample(name: str, job: Job) -> Drawn:
    """Foreman-Mackey et al. (2013); every walker makes as many steps as the others have draws."""
    import emcee
    import jax
    import numpy as np
    from benchmarks.posteriors.densities import DENSITIES

    log_density, dim = DENSITIES[name]()
    walkers = job.chains or max(32, 4 * dim)
    compiled = jax.jit(jax.vmap(log_density))

    def evaluate(z):
        value = np.asarray(compiled(z))
        return np.where(np.isnan(value), -np.inf, value)

    np.random.seed(job.seed)  # noqa: NPY002 - that is where the sampler takes its own state from
    steps = job.draws
    sampler = emcee.EnsembleSampler(walkers, dim, evaluate, vectorize=True)
    state = sampler.run_mcmc(start(log_density, dim, walkers, job.seed), job.warmup, store=False)
    thin = max(1, -(-walkers * steps // KEPT))
    sampler.run_mcmc(state, steps // thin, thin_by=thin)
    return Drawn(sampler.get_chain().swapaxes(0, 1))
