"""Drawing tokens: one category for each place of each sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import NanLogPotential, name_particles
from motes.rng import Rng
from motes.rng.discrete import invert

MOST = 1 << 22
"""How many weights are held as float64 at a time."""


def draw(rng: Rng, log_law: Tensor, where: Tensor | None = None) -> Tensor:
    """States (N, L) int64 drawn with probability proportional to exp(log_law) (N, L, S), each by one uniform number.

    Args:
        rng: the address; a place's number does not depend on which other places are drawn.
        log_law: (N, L, S) log-weights.
        where: (N, L) bool, the places to draw; the others are 0.

    Raises:
        NanLogPotential: a law that is asked for holds NaN or +inf, or nothing but -inf; names the particles.
    """
    n, length, _ = log_law.shape
    u = rng.uniform((n, length)).to(log_law.device)
    where = torch.ones_like(u, dtype=torch.bool) if where is None else where
    particle, place = where.nonzero(as_tuple=True)
    out = torch.zeros((n, length), dtype=torch.int64, device=log_law.device)
    out[particle, place] = draw_rows(u[particle, place], log_law, particle, place)
    return out


def draw_rows(u: Tensor, log_law: Tensor, particle: Tensor, place: Tensor, *, names: Tensor | None = None) -> Tensor:
    """States (R,) of the laws log_law[particle, place] (R, S), by inversion at heights u (R,).

    Errors as in `draw`; they name `names` (R,), or the particles.
    """
    names = particle if names is None else names
    out = torch.empty_like(particle)
    rows = max(1, MOST // log_law.shape[-1])
    for first in range(0, len(particle), rows):
        part = slice(first, first + rows)
        law = log_law[particle[part], place[part]].to(torch.float64)
        top = law.amax(-1)
        bad = ~torch.isfinite(top)
        if bool(bad.any()):
            who = name_particles(names[part][bad].unique().tolist())
            raise NanLogPotential(f"the law of a token is NaN or +inf, or allows nothing, for {who}; look at the model")
        out[part] = invert(law, u[part][:, None], top)[:, 0]
    return out
