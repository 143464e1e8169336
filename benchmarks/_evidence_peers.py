"""Runs of other packages on the targets of the evidence benchmark, in a process and an interpreter of their own."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from benchmarks._evidence_targets import NUMPY, TARGETS, Target

MOST = 3_000_000
"""Calls of the likelihood after which a nested sampler is stopped."""


def dynesty(target: Target, seed: int) -> tuple[float, float, float]:
    """dynesty's static nested sampling with its defaults and 500 live points."""
    import dynesty

    likelihood, calls = target.likelihood(NUMPY), [0]

    def counted(x: np.ndarray) -> float:
        calls[0] += 1
        return float(likelihood(x))

    sampler = dynesty.NestedSampler(
        counted, target.from_cube, target.dim, nlive=500, rstate=np.random.default_rng(seed)
    )
    sampler.run_nested(print_progress=False, maxcall=MOST)
    found = sampler.results
    return float(found.logz[-1]), float(found.logzerr[-1]), calls[0]


def nautilus(target: Target, seed: int) -> tuple[float, float, float]:
    """nautilus' importance nested sampling with its defaults (2000 live points); it states no error of log Z."""
    import nautilus as package

    likelihood, calls = target.likelihood(NUMPY), [0]

    def counted(x: np.ndarray) -> np.ndarray:
        calls[0] += len(x)
        return likelihood(x)

    sampler = package.Sampler(target.from_cube, counted, n_dim=target.dim, vectorized=True, seed=seed, pass_dict=False)
    sampler.run(verbose=False, n_like_max=MOST)
    return float(sampler.log_z), math.nan, calls[0]


def particles(target: Target, seed: int) -> tuple[float, float, float]:
    """particles 0.4: waste-free tempering with random-walk Metropolis, 200 chains of 50, as its authors advise.

    It draws from NumPy's global generator.
    """
    sys.path.insert(0, str(Path(__file__).parent.parent / "build" / "particles"))
    import particles as package
    from particles import distributions as laws
    from particles import smc_samplers

    likelihood, calls = target.likelihood(NUMPY), [0]

    class Model(smc_samplers.StaticModel):
        def loglik(self, theta, t=None):
            calls[0] += len(theta)
            return likelihood(theta["x"])

    if target.box:
        law = laws.IndepProd(*[laws.Uniform(a=-target.scale, b=target.scale) for _ in range(target.dim)])
    else:
        law = laws.MvNormal(loc=np.zeros(target.dim), scale=target.scale, cov=np.eye(target.dim))
    model = Model(data=None, prior=laws.StructDist({"x": law}))
    np.random.seed(seed)  # noqa: NPY002
    run = package.SMC(
        fk=smc_samplers.AdaptiveTempering(model=model, len_chain=50, wastefree=True), N=200, verbose=False
    )
    run.run()
    return float(run.summaries.logLts[-1]), math.nan, calls[0]


def blackjax_runner(target: Target):
    """blackjax's adaptive tempered SMC, 1000 particles, HMC with the population's covariance: 4 leapfrog steps of
    pi / 8, one sweep a temperature, target ESS 0.9 (one of the settings that tempered_smc.py tries)."""
    from types import SimpleNamespace

    import blackjax
    import blackjax.smc.resampling
    import jax
    import jax.numpy as jnp
    from blackjax.smc.inner_kernel_tuning import as_top_level_api as tuned
    from blackjax.smc.tuning.from_particles import particles_covariance_matrix

    jax.config.update("jax_enable_x64", True)
    n, steps, d = 1000, 4, target.dim
    arrays = SimpleNamespace(asarray=jnp.asarray, exp=jnp.exp, logsumexp=lambda v: jax.scipy.special.logsumexp(v, -1))
    likelihood = target.likelihood(arrays)
    height = d * (0.5 * math.log(2 * math.pi) + math.log(target.scale))

    def place(z):  # a box is on the real line by the logistic map, as motes has it
        return target.scale * (2 * jax.nn.sigmoid(z) - 1) if target.box else z

    def prior(z):
        if target.box:
            return (jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)).sum()
        return (-0.5 * (z / target.scale) ** 2).sum() - height

    def draw(key):
        return jax.random.logistic(key, (n, d)) if target.box else target.scale * jax.random.normal(key, (n, d))

    fixed = {"step_size": jnp.array([math.pi / 2 / steps]), "num_integration_steps": jnp.array([steps])}
    algorithm = tuned(
        blackjax.adaptive_tempered_smc,
        logprior_fn=prior,
        loglikelihood_fn=lambda z: likelihood(place(z)),
        mcmc_step_fn=blackjax.hmc.build_kernel(),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=blackjax.smc.resampling.systematic,
        mcmc_parameter_update_fn=lambda _, state, info: (
            fixed | {"inverse_mass_matrix": particles_covariance_matrix(state.particles)[None]}
        ),
        initial_parameter_value=fixed | {"inverse_mass_matrix": target.scale**2 * jnp.eye(d)[None]},
        num_mcmc_steps=1,
        target_ess=0.9,
    )

    @jax.jit
    def run(seed):
        key, first = jax.random.split(jax.random.key(seed))

        def body(carry):
            key, state, total, count = carry
            key, sub = jax.random.split(key)
            state, info = algorithm.step(sub, state)
            return key, state, total + info.log_likelihood_increment, count + 1

        carry = (key, algorithm.init(draw(first)), jnp.zeros(()), 0)
        _, _, total, count = jax.lax.while_loop(lambda c: c[1].sampler_state.tempering_param < 1, body, carry)
        return total, count

    def call(_: Target, seed: int) -> tuple[float, float, float]:
        total, count = jax.block_until_ready(run(seed))
        return float(total), math.nan, float(count) * steps * n

    call(target, 10_000)
    return call


def main(key: str, peer: str, seeds: int, path: str) -> None:
    target, rows = TARGETS[key](), []
    simple = {"dynesty": dynesty, "nautilus": nautilus, "particles": particles}
    call = blackjax_runner(target) if peer == "blackjax" else simple[peer]
    for seed in range(seeds):
        began = time.process_time()
        log_z, se, points = call(target, seed)
        rows.append({"log_z": log_z, "se": se, "points": points, "seconds": time.process_time() - began})
    Path(path).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
