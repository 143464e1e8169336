"""Geweke's joint test: two ways to draw parameters and data together must agree."""

from __future__ import annotations

from statistics import NormalDist

import torch

from motes.core.drive import uninterrupted
from motes.core.sample import sample
from motes.density.annealing.tempering import Tempering
from motes.density.checks.finding import FAILED, OK, Finding, coordinates
from motes.density.checks.setting import Setting, watched
from motes.kernels import Kernel
from motes.laws.tempered import Tempered
from motes.rng import Rng

PILOT = 256
"""Particles of the run that tunes the kernel."""
SWEEPS = 20
"""Rounds of "move given the data, then new data given the parameters" of each chain."""
ALPHA = 1e-3
"""Chance of a false alarm, over all quantities together."""


def geweke(
    setting: Setting,
    rng: Rng,
    replicates: int = 100,
    kernel: Kernel | str | None = None,
    progress: bool = False,
) -> Finding:
    """Parameters after rounds of "one sweep given the data, new data given the parameters" still have the prior's law.

    Each of many independent chains starts at a draw from the prior with data simulated there, which is a draw from the
    joint law. If the kernel leaves posteriors invariant and the simulator draws from the likelihood, it stays one, so
    that parameters and their squares at the end have the prior's means: two z-tests for each coordinate, between the
    ends and independent draws from the prior, at a family-wise level of 1e-3 (Bonferroni).

    References:
        Geweke (2004), Getting it right: joint distribution tests of posterior simulators, JASA 99(467).
    """
    truth, data = setting.drawn(rng, replicates)
    first = setting.first()
    names, mover = coordinates(first), Tempering(first, kernel=kernel).mover
    # the kernel is tuned to one simulated data set and then left alone, as the test demands
    seed = int(rng.at("pilot").integers((), 1 << 31))
    model = Tempering(setting.density(data[0]), kernel=mover, careful=False)  # whose scales are those of z itself
    pilot = uninterrupted(sample(model, PILOT, seed=seed, progress=False))
    parameters = pilot.particles.shared["ladder"][-1]["parameters"]
    ends = []
    for i, observed in enumerate(watched(data, "geweke", progress)):
        z, own = truth[i : i + 1], observed
        for k in range(SWEEPS):
            density = setting.density(own)
            target = Tempered(density, 1.0)
            state = density.evaluate(z, mover.gradient)
            state = mover.enter(rng.at(f"enter-{i}", inner=k), target, state, parameters)
            sweep = mover.sweep(rng.at(f"sweep-{i}", inner=k), target, state, parameters)
            z = sweep.state["position"]
            own = setting.data_for(rng.at(f"again-{i}-{k}"), density, z, 0)
        ends.append(z[0])
    end, fresh = torch.stack(ends).double(), first.sample(rng.at("fresh"), 10 * replicates).double()
    centre, width = fresh.median(0).values, fresh.std(0).clamp_min(1e-300)
    end, fresh = ((v - centre) / width for v in (end, fresh))
    limit = NormalDist().inv_cdf(1 - ALPHA / (4 * first.dim))
    for f, what in ((lambda v: v, "mean"), (lambda v: v.clamp(-4, 4).square(), "spread")):
        a, b = f(end), f(fresh)
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt().clamp_min(1e-12)
        off = (a.mean(0) - b.mean(0)) / error
        k = int(off.abs().argmax())
        if not float(off[k].abs()) < limit:
            return Finding(
                "geweke", FAILED, f"the {what} of {names[k]} drifts from the prior's by {float(off[k]):.1f} standard "
                f"errors in {SWEEPS} rounds of moving it given data and drawing data given it: the likelihood is not "
                "the law that simulate draws from, or the kernel is wrong", {"parameter": names[k], "z": float(off[k])},
            )  # fmt: skip
    return Finding("geweke", OK, f"{replicates} chains of {SWEEPS} rounds keep the prior's means and spreads")
