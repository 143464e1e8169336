"""Whether the images of a measurement all come of one start."""

from __future__ import annotations

from motes.core.history.genealogy import spread
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.weights import normalise

FEW = 2.0
"""The effective number of starts below which a population has collapsed."""
MANY = 8
"""Particles from which that is worth a word."""


def collapse_remarks(particles: Particles) -> list[Remark]:
    """What a run conditioned on a measurement has to say where hardly more than one of its starts is left."""
    if particles.n < MANY:
        return []
    families = 1 / spread(particles.root, normalise(particles.log_weight))
    if families >= FEW:
        return []
    text = (
        f"the images descend from {families:.1f} of {particles.n} starts in effective number: the measurement chose "
        "among particles that the guidance had not brought together, and the images are nearly copies. Take more "
        "particles, more steps, or a measurement with more noise"
    )
    return [Remark(text, ALL)]
