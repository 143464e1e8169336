"""What a run of a composition of models says of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from motes.core.particles import Particles
from motes.core.remark import ALL, EVIDENCE, Remark
from motes.diffusion.composing.driftlite import ENOUGH
from motes.diffusion.flows.coupling import coupling_remarks

if TYPE_CHECKING:
    from motes.diffusion.composing.composition import Composition

LOUD = 0.2
"""Nats of estimated discretisation error from which a run says so, whatever its bar."""


def remarks(model: Composition, particles: Particles) -> list[Remark]:
    """Which rule made the weights where that matters, and signs that the composition cannot be normalised."""
    said = coupling_remarks(particles.shared)
    if model.rule == "none":
        text = "there are no weights: the samples follow the sum of scores, not the composition"
        said.append(Remark(text, ALL, withholds=True))
    if model.rule == "transition" and model.grid.steps == 1:
        text = "1 step is too few to know its error: no two can be compared with one of twice the length. Use more"
        said.append(Remark(text, ALL, withholds=True))
    found = model.systematic(particles)
    if found is not None and found.exceeds(LOUD):
        error = model.discretisation(particles)
        text = (
            f"with {model.grid.steps} steps the log normaliser is off by about {error:+.2g} nats, and the means with it"
        )
        said.append(Remark(f"{text}: use more steps", ALL))
    size = model.control.size(math.prod(model.shape), len(model.denoisers)) if model.control else 0
    if particles.n < ENOUGH * size:
        text = (
            f"the control has {size} coefficients, fitted to {particles.n} particles that they then move: the log "
            f"normaliser is biased by more than its spread shows. Take at least {ENOUGH * size} particles, or a "
            "smaller basis"
        )
        said.append(Remark(text, EVIDENCE, withholds=True))
    if model.reward is None and float(particles.shared["tails"]) < 0:
        text = (
            "the product of powers grows in its tails (its mean second derivative is positive): with these exponents "
            "it cannot be normalised, as when a model of negative exponent is narrower than the others. The samples "
            "mean nothing; take smaller exponents, or a wider model for the negative one"
        )
        said.append(Remark(text, ALL, withholds=True))
    return said
