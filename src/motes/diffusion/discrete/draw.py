"""Drawing tokens: one category for each place of each sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core.errors import NanLogPotential, name_particles
from motes.rng import Rng
from motes.rng.discrete import invert


def draw(rng: Rng, log_law: Tensor, where: Tensor | None = None, *, most: int = 1 << 22) -> Tensor:
    """States (N, L) int64 drawn with probability proportional to exp(log_law) (N, L, S), each by one uniform number.

    Args:
        rng: the address; a place's number does not depend on which other places are drawn.
        log_law: (N, L, S) log-weights.
        where: (N, L) bool, the places to draw; the others are 0.
        most: how many weights are held as float64 at a time.

    Raises:
        NanLogPotential: a law that is asked for holds NaN or +inf, or nothing but -inf; names the particles.
    """
    n, length, states = log_law.shape
    u = rng.uniform((n, length)).to(log_law.device)
    at = torch.ones_like(u, dtype=torch.bool) if where is None else where
    particle, place = at.nonzero(as_tuple=True)
    out = torch.zeros((n, length), dtype=torch.int64, device=log_law.device)
    rows = max(1, most // states)
    for first in range(0, len(particle), rows):
        i, j = particle[first : first + rows], place[first : first + rows]
        law = log_law[i, j].to(torch.float64)
        top = law.amax(-1)
        bad = ~torch.isfinite(top)
        if bool(bad.any()):
            who = name_particles(i[bad].unique().tolist())
            raise NanLogPotential(
                f"the law of a token holds NaN or +inf, or allows nothing, for {who}; look at the model"
            )
        out[i, j] = invert(law, u[i, j][:, None], top)[:, 0]
    return out


def log_prob(log_law: Tensor, state: Tensor, where: Tensor | None = None) -> Tensor:
    """(N,) float64: the log-probability of states (N, L) under independent laws (N, L, S), at the places `where`."""
    value = log_law.gather(-1, state[..., None])[..., 0].to(torch.float64)
    return (value if where is None else torch.where(where, value, 0.0)).sum(1).cpu()
