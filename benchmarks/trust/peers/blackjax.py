"""blackjax, adaptive tempered SMC: 1,000 particles, HMC with the population's covariance, ESS .9; it states no error.

Four leapfrog steps of pi / 8 and one sweep a temperature, as in the benchmark of evidence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.trust.peers.callback import call_back
from benchmarks.trust.peers.problem import Problem, unknown

N, STEPS = 1000, 4


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import blackjax
    import blackjax.smc.resampling
    import jax
    import jax.numpy as jnp
    from blackjax.smc.inner_kernel_tuning import as_top_level_api as tuned
    from blackjax.smc.tuning.from_particles import particles_covariance_matrix

    jax.config.update("jax_enable_x64", True)

    def part(name: str) -> Any:
        def values(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = problem.parts(z, True)
            return found[f"log_{name}"], found[f"{name}_gradient"]

        return call_back(values, problem.free)

    start = jnp.asarray(problem.draw(seed, N))
    fixed = {"step_size": jnp.array([math.pi / 2 / STEPS]), "num_integration_steps": jnp.array([STEPS])}
    algorithm = tuned(
        blackjax.adaptive_tempered_smc,
        logprior_fn=part("prior"),
        loglikelihood_fn=part("likelihood"),
        mcmc_step_fn=blackjax.hmc.build_kernel(),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=blackjax.smc.resampling.systematic,
        mcmc_parameter_update_fn=lambda _, state, info: (
            fixed | {"inverse_mass_matrix": particles_covariance_matrix(state.particles)[None]}
        ),
        initial_parameter_value=fixed | {"inverse_mass_matrix": jnp.cov(start.T).reshape(1, *2 * (problem.free,))},
        num_mcmc_steps=1,
        target_ess=0.9,
    )
    step, state, total, key = jax.jit(algorithm.step), algorithm.init(start), 0.0, jax.random.key(seed)
    while float(state.sampler_state.tempering_param) < 1:
        key, sub = jax.random.split(key)
        state, info = step(sub, state)
        total += float(info.log_likelihood_increment)
    means = {k: float(v.mean()) for k, v in problem.of_free(np.asarray(state.sampler_state.particles)).items()}
    return {"log_evidence": total, "se": math.nan, "reason": "it states none", "means": unknown(means)}
