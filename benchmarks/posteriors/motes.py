"""`motes.Chains` with its defaults, 64 chains in one batch, from draws of the prior, warmed up until they agree."""

from __future__ import annotations

from benchmarks.posteriors.drawn import Drawn, Job

CHAINS = 64
GAUSSIAN = ("arK-arK", "nes2000-nes", "diamonds-diamonds")
"""Regressions that exist with all rows of data, as the other runners have them."""


def sample(name: str, job: Job) -> Drawn:
    """Gradients are leapfrog steps of all chains, those of the warm start and the warm-up included."""
    import torch
    from tests.posteriors import posterior

    import motes

    torch.set_num_threads(1)  # as the commands of `motes` do: a batch this small is slower with two
    chains = job.chains or CHAINS
    density = posterior(name, **({"rows": "all"} if name in GAUSSIAN else {})).density()
    model = motes.Chains(density, draws=max(1, job.draws // chains))
    run = motes.sample(model, chains, seed=job.seed, progress=False)
    return Drawn(run.particles.x["draws"].numpy(), float(run.trace["evaluations"].sum()) * chains)
