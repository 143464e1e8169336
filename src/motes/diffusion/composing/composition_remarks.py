"""What a run of a composition of models says of itself."""

from __future__ import annotations

from motes.core.estimate.systematic import Systematic
from motes.core.particles import Particles
from motes.core.remark import ALL, EVIDENCE, Remark
from motes.diffusion.composing.driftlite import ENOUGH
from motes.diffusion.flows.coupling import coupling_remarks
from motes.errors import plural

LOUD = 0.2
"""Nats of estimated discretisation error from which a run says so, whatever its bar."""


def remarks(
    particles: Particles,
    *,
    rule: str,
    steps: int,
    systematic: Systematic | None,
    error: float,
    coefficients: int,
    rewarded: bool,
) -> list[Remark]:
    """Which rule made the weights where that matters, and signs that the composition cannot be normalised.

    Args:
        particles: the population.
        rule: that made the weights.
        steps: of the grid.
        systematic, error: of the log normaliser, by the steps; nats.
        coefficients: of the control; 0 without.
        rewarded: whether there is a reward.
    """
    said = coupling_remarks(particles.shared)
    if rule == "none":
        text = "there are no weights: the samples follow the sum of scores, not the composition"
        said.append(Remark(text, ALL, withholds=True))
    if rule == "transition" and steps == 1:
        text = "1 step is too few to know its error: no two can be compared with one of twice the length. Use more"
        said.append(Remark(text, ALL, withholds=True))
    if systematic is not None and systematic.exceeds(LOUD):
        text = f"with {plural(steps, 'step')} the log normaliser is off by about {error:+.2g} nats, and the means"
        said.append(Remark(f"{text} with it: use more steps", ALL))
    if particles.n < ENOUGH * coefficients:
        text = (
            f"the control has {coefficients} coefficients, fitted to {particles.n} particles that they then move: the "
            "log normaliser is biased by more than its spread shows. Take at least "
            f"{ENOUGH * coefficients} particles, or a smaller basis"
        )
        said.append(Remark(text, EVIDENCE, withholds=True))
    if not rewarded and float(particles.shared["tails"]) < 0:
        text = (
            "the product of powers grows in its tails (its mean second derivative is positive): with these exponents "
            "it cannot be normalised, as when a model of negative exponent is narrower than the others. The samples "
            "mean nothing; take smaller exponents, or a wider model for the negative one"
        )
        said.append(Remark(text, ALL, withholds=True))
    return said
