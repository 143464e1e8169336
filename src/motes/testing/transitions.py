"""Laws of transitions: shapes, and a log-density that is that of the mean and the deviation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from motes.core.transition import Transition, mean_and_deviation, must_be_transition
from motes.errors import MotesError
from motes.rng import Rng
from motes.testing.violation import LawViolation

EXACT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far a log-density may be off by rounding, for each coordinate, by the type of the states."""


def check_transition(
    transition: Transition, state: Tensor, *, condition: Any = None, seed: int = 0
) -> dict[str, float]:
    """Check that a transition keeps the laws of `motes.core.Transition`; no law of it is by chance.

    - "shapes": the mean is like the state, deviations are as the protocol says, log-densities are (N,) float64.
    - "density": at mean + deviation * e, for random e, the log-density is that of a normal law.
    - "address": asked twice, it answers with the same bits.

    Args:
        transition: what is checked.
        state: (N, ...) where it is asked.
        condition: what it is told.
        seed: of the points at which densities are compared.

    Returns:
        By law how far it was from failing: for "density" the largest error, nats; what is exact is 0.

    Raises:
        WrongType: it is no transition; the message says which method it lacks.
        LawViolation: a law does not hold; the message says what was expected and what came.
    """
    must_be_transition(transition)
    try:
        mean, deviation = mean_and_deviation(transition, state, condition)
    except MotesError as error:
        raise LawViolation("shapes", str(error)) from error
    wide = deviation.expand_as(state)
    noise = Rng(seed).at("noise").normal(tuple(state.shape), dtype=state.dtype)
    new = mean + wide * noise
    found = transition.log_density(new, state, condition)
    if found.shape != (len(state),) or found.dtype != torch.float64:
        raise LawViolation("shapes", f"log-densities are {tuple(found.shape)} {found.dtype}, not (N,) float64")
    each = -0.5 * noise.double().square() - wide.double().log() - 0.5 * math.log(2 * math.pi)
    error = float((found - each.reshape(len(each), -1).sum(1)).abs().max())
    if not error < EXACT[state.dtype] * each[0].numel():
        raise LawViolation("density", f"a log-density is {error:.3g} nats from that of the mean and the deviation")
    if not torch.equal(transition.log_density(new, state, condition), found):
        raise LawViolation("address", "asked twice for the density of the same step, it gives two answers")
    return {"shapes": 0.0, "density": error, "address": 0.0}
