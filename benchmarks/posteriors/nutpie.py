"""nutpie's NUTS with its defaults, four chains on two cores, with value and gradient from a compiled JAX function."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job, start


def sample(name: str, job: Job) -> Drawn:
    """github.com/pymc-devs/nutpie, whose mass matrix comes from draws and gradients; each chain adapts for itself."""
    import jax
    import numpy as np
    import nutpie
    from benchmarks.posteriors.densities import DENSITIES
    from nutpie.compiled_pyfunc import from_pyfunc

    chains = job.chains or 4
    log_density, dim = DENSITIES[name]()
    evaluate = jax.jit(jax.value_and_grad(log_density))
    first = list(start(log_density, dim, chains, job.seed))

    def make_log_density():
        def call(z):
            value, gradient = evaluate(z)
            return float(value), np.asarray(gradient)

        return call

    model = from_pyfunc(
        dim,
        make_log_density,
        lambda *_: lambda z: {"z": np.asarray(z)},
        [np.dtype(np.float64)],
        [(dim,)],
        ["z"],
        make_initial_point_fn=lambda _: first.pop(),
    )
    trace = nutpie.sample(
        model,
        draws=job.draws // chains,
        tune=job.warmup,
        chains=chains,
        cores=2,
        seed=job.seed,
        progress_bar=False,
    )
    steps = sum(float(stats["n_steps"].sum()) for stats in (trace.warmup_sample_stats, trace.sample_stats))
    return Drawn(trace.posterior["z"].values, steps)
