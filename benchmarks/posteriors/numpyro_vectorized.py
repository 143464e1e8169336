"""NumPyro's NUTS with its defaults, four chains in one vectorised program."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job


def sample(name: str, job: Job, method: str = "vectorized") -> Drawn:
    """Phan, Pradhan & Jankowiak (2019); gradients count from the number of leapfrog steps, warm-up included."""
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    chains = job.chains or 4
    if method == "parallel":
        numpyro.set_host_device_count(chains)
    from benchmarks.posteriors.densities import DENSITIES
    from benchmarks.posteriors.drawn import start

    log_density, dim = DENSITIES[name]()
    kernel = NUTS(potential_fn=lambda z: -log_density(z))
    options = {"num_chains": chains, "chain_method": method, "progress_bar": False}
    mcmc = MCMC(kernel, num_warmup=job.warmup, num_samples=job.draws // chains, **options)
    key, z = jax.random.key(job.seed), start(log_density, dim, chains, job.seed)
    mcmc.warmup(key, init_params=z, extra_fields=("num_steps",), collect_warmup=True)
    steps = float(mcmc.get_extra_fields()["num_steps"].sum())
    mcmc.run(jax.random.key(job.seed + 1), extra_fields=("num_steps",))
    steps += float(mcmc.get_extra_fields()["num_steps"].sum())
    return Drawn(mcmc.get_samples(group_by_chain=True), steps)
