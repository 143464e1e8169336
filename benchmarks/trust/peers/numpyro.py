"""NumPyro, NUTS at its defaults: 4 chains, 1,000 draws each after 1,000 of warm-up; errors of means from its own ESS.

R-hat above 1.01, fewer than 400 effective draws or a divergence counts as a remark that doubts the means.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from benchmarks.trust.peers.callback import call_back
from benchmarks.trust.peers.chains import summarised
from benchmarks.trust.peers.problem import Block, Problem

N = 4


def prior(block: Block) -> Any:
    """The same law in NumPyro."""
    import jax.numpy as jnp
    from numpyro import distributions as laws

    p = block.prior
    names = {"Normal": ("loc", "scale"), "HalfCauchy": ("scale",), "Uniform": ("low", "high")}
    names |= {"Beta": ("concentration1", "concentration0"), "Gamma": ("concentration", "rate")}
    names |= {"Dirichlet": ("concentration",)}
    kind = type(p).__name__
    law = getattr(laws, kind)(*(jnp.asarray(getattr(p, name).numpy()) for name in names[kind]))
    return law.to_event(len(p.batch_shape))


def run(problem: Problem, seed: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpyro

    jax.config.update("jax_enable_x64", True)
    f = call_back(problem.with_gradient, problem.dim)

    def model() -> None:
        drawn = [numpyro.sample(b.name, prior(b)).reshape(-1) for b in problem.blocks]
        numpyro.factor("likelihood", f(jnp.concatenate(drawn)))

    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model),
        num_warmup=1000,
        num_samples=1000,
        num_chains=N,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed))
    draws = mcmc.get_samples(group_by_chain=True)
    x = np.concatenate([np.asarray(draws[b.name]).reshape(N, 1000, -1) for b in problem.blocks], 2)
    diverged = int(mcmc.get_extra_fields()["diverging"].sum())
    return summarised(problem, x, diverged) | {"log_evidence": math.nan, "se": math.nan}
