"""The spread between families of chains, beside the autocovariances along them."""

from __future__ import annotations

import math

import torch

from motes import Rng
from motes.core.estimate.autocorrelation import relative_variance
from motes.density.annealing.families import MANY, Families


def run(
    seed: int, memory: float, steps: int, chains: int, length: int, step: float = 0.3
) -> tuple[float, float, float]:
    """Log evidence, and its variance by families and by autocovariances, of chains that keep part of their start.

    The state of a particle is one number, standard normal under every weight: a chain begins at its parent's and
    refreshes each time to memory x + sqrt(1 - memory^2) noise. Its weight is exp(step x - step^2 / 2).
    """
    n, rng, step = chains * length, Rng(seed), 0.3
    x = rng.at("start").normal((n,))
    gain = step * x - step**2 / 2
    variance = relative_variance(gain.view(n, 1))[0]
    families, log_z = Families.start(variance, n), float(gain.logsumexp(0)) - math.log(n)
    for t in range(steps):
        at = rng.at("step", step=t)
        parent = at.at("parent").categorical(gain, chains).sort().values.repeat_interleave(length)
        chain = [x[parent[::length]]]
        for k in range(length - 1):
            noise = at.at("noise", inner=k).normal((chains,))
            chain.append(memory * (chain[-1] - step) + math.sqrt(1 - memory**2) * noise + step)
        x = torch.stack(chain, 1).flatten() - step
        gain = step * x - step**2 / 2
        families = families.grown(parent, gain, length)
        variance += relative_variance(gain.view(chains, length))[0]
        log_z += float(gain.logsumexp(0)) - math.log(n)
    return log_z, families.variance, variance


def ratios(memory: float, seeds: range = range(60)) -> tuple[float, float]:
    """What families and autocovariances say of the variance of the log evidence, as parts of what it is."""
    found = torch.tensor([run(seed, memory, steps=6, chains=40, length=10) for seed in seeds], dtype=torch.float64)
    truth = found[:, 0].square().mean()  # the evidence is 1
    return float(found[:, 1].mean() / truth), float(found[:, 2].mean() / truth)


def test_both_agree_where_chains_forget() -> None:
    families, chains = ratios(0.5)
    assert 0.6 < families < 1.6 and 0.6 < chains < 1.6


def test_families_see_what_chains_remember_and_autocovariances_do_not() -> None:
    families, chains = ratios(0.99)
    assert families > 2 * chains and chains < 0.4


def test_the_larger_counts_and_none_where_they_disagree() -> None:
    lineage = torch.arange(4)[:, None]
    agree = Families(lineage, 0.04, 0.04 / 10)
    assert agree.checked(0.05, "chains").value == math.sqrt(0.05)
    assert math.isinf(agree.checked(0.05, "chains").freedom)
    larger = agree.checked(0.02, "chains")
    assert larger.value == 0.2 and abs(larger.freedom - 9) < 1e-9 and larger.reach(0.95) > 1.96 * 0.2
    none = agree.checked(0.009, "chains")
    assert math.isnan(none.value) and "disagree" not in none.method and "remember" in none.reason


def test_families_are_followed_while_there_are_enough() -> None:
    families = Families.start(0.0, 400)
    flat = torch.zeros(400, dtype=torch.float64)
    for t in range(12):
        parent = Rng(1).at("p", step=t).categorical(flat, 40).sort().values.repeat_interleave(10)
        families = families.grown(parent, flat, 10)
    assert families.lineage.shape == (400, 9)
    left = [len(slots.unique()) for slots in families.lineage.unbind(1)]
    assert left == sorted(left) and left[-1] == 40 and left[0] < MANY * 2
    assert abs(families.variance) < 1e-12
