"""Laws of transitions: shapes, and a log-density that is that of the mean and the deviation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from motes.core.transition import Transition, mean_and_deviation, must_be_transition
from motes.errors import MotesError, ShapeError
from motes.rng import Rng
from motes.testing.violation import LawViolation, must_be

EXACT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far a log-density may be off by rounding, for each coordinate, by the type of the states."""


def check_transition(
    transition: Transition, state: Tensor, *, condition: Any = None, seed: int = 0
) -> dict[str, float]:
    """Check that a transition keeps the laws of `motes.core.Transition`; no law of it is by chance.

    - "shapes": means and deviations have shapes as the protocol says and the dtype of the state (but for a single
      number), log-densities are (N,) float64.
    - "density": at mean + deviation * e, for random e, the log-density is that of a normal law.
    - "address": asked twice, it answers with the same bits.

    Args:
        transition: what is checked.
        state: (N, ...) where it is asked, N >= 1, float32 or float64.
        condition: what it is told.
        seed: of the points at which densities are compared.

    Returns:
        By law how far it was from failing: for "density" the largest error, nats; what is exact is 0.

    Raises:
        WrongType: it is no transition; the message says which method it lacks.
        ShapeError: the states are none of these.
        LawViolation: a law does not hold; the message says what was expected and what came.
    """
    must_be_transition(transition)
    must_be(state, Tensor, "state", "a tensor (N, ...)")
    if state.ndim == 0 or state.numel() == 0 or state.dtype not in EXACT:
        raise ShapeError(
            f"state must be (N, ...) float32 or float64 and hold numbers, not {tuple(state.shape)} {state.dtype}"
        )
    try:
        mean, deviation = mean_and_deviation(transition, state, condition)
    except MotesError as error:
        raise LawViolation("shapes", str(error)) from error
    for what, value in (("means", mean), ("deviations", deviation)):
        if value.ndim and value.dtype != state.dtype:
            raise LawViolation("shapes", f"{what} are {value.dtype}, not {state.dtype} like the state")
    wide = deviation.expand_as(state)
    noise = Rng(seed).at("noise").normal(tuple(state.shape), dtype=state.dtype)
    new = mean + wide * noise
    found = transition.log_density(new, state, condition)
    if not isinstance(found, Tensor) or found.shape != (len(state),) or found.dtype != torch.float64:
        said = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise LawViolation("shapes", f"log-densities are {said}, not (N,) float64")
    each = -0.5 * noise.double().square() - wide.double().log() - 0.5 * math.log(2 * math.pi)
    error = float((found - each.reshape(len(each), -1).sum(1)).abs().max())
    if not error < EXACT[state.dtype] * each[0].numel():
        raise LawViolation("density", f"a log-density is {error:.3g} nats from that of the mean and the deviation")
    if not torch.equal(transition.log_density(new, state, condition), found):
        raise LawViolation("address", "asked twice for the density of the same step, it gives two answers")
    return {"shapes": 0.0, "density": error, "address": 0.0}
