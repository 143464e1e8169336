"""Climbing a law's log-density by BFGS with a limited memory, on many paths at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.laws.law import Law
from motes.rng import Rng

ARMIJO, WOLFE, HALVINGS = 1e-4, 0.9, 30


@dataclass(frozen=True)
class Iterate:
    """Where P paths stand.

    Attributes:
        z: (P, d).
        value: (P,) float64 nats, the log-density.
        gradient: (P, d) of it.
        inverse: (P, d, d) an estimate of the inverse of minus its Hessian.
        moving: (P,) which paths have moved in this step.
    """

    z: Tensor
    value: Tensor
    gradient: Tensor
    inverse: Tensor
    moving: Tensor


def starts(density: Law, rng: Rng, n: int) -> Tensor:
    """(n, d) draws from the reference with a positive likelihood.

    Raises:
        MotesError: the law has no gradients, or none of 64 n draws has a positive likelihood.
    """
    if density.levels is not None or not density.differentiable:
        raise MotesError("climbing needs gradients: write log_likelihood with torch operations, over real parameters")
    z = density.sample(rng.at("start"), 64 * n)
    for tried in (n, 64 * n):  # rarely is the first part not enough
        found = z[:tried][density.evaluate(z[:tried])["log_likelihood"] > -torch.inf]
        if len(found) >= n or tried > n:
            break
    if not len(found):
        raise MotesError(f"the likelihood is zero at all of {64 * n} draws from the prior: give a narrower prior")
    return found[torch.arange(n) % len(found)]


Look = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps z (P, d) to log-densities (P,) and their gradients (P, d)."""


def climb(density: Law, z: Tensor, steps: int, history: int) -> Iterator[Iterate]:
    """`ascend` on a law's log-density."""

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        s, _ = density.trial(z, True)  # a step of the search that leaves the support is shortened
        return s["log_prior"] + s["log_likelihood"], s["prior_gradient"] + s["likelihood_gradient"]

    return ascend(look, z, steps, history)


def ascend(look: Look, z: Tensor, steps: int, history: int) -> Iterator[Iterate]:
    """The places of paths that start at z (P, d), step by step, until all of them stand still.

    A direction is H g with H the inverse Hessian by the last `history` pairs of differences, on top of a diagonal that
    is learnt with them; the step along it meets the weak Wolfe conditions, so that H stays positive. A pair without
    positive curvature is left out.

    References:
        Nocedal & Wright (2006), Numerical Optimization, sections 3.1, 6.1 and 7.2, Springer.
        Zhang, Carpenter, Gelman & Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference, JMLR
        23(306), algorithm 3 (the diagonal).
    """
    (p, d), z = z.shape, z.clone()
    value, gradient = look(z)
    diagonal, pairs = torch.ones_like(z), []
    inverse = torch.eye(d, dtype=z.dtype).repeat(p, 1, 1)
    yield Iterate(z, value, gradient, inverse, torch.ones(p, dtype=torch.bool))
    for k in range(steps):
        way = torch.einsum("pij,pj->pi", inverse, gradient)
        if k == 0:
            way = way / torch.linalg.vector_norm(way, dim=1, keepdim=True).clamp(min=1.0)
        slope = (way * gradient).sum(1)
        new, there, pull, moving = _search(look, z, value, gradient, way, slope)
        if not moving.any():
            return
        s, y = new - z, gradient - pull
        curved = moving & ((s * y).sum(1) > 1e-12 * y.square().sum(1))
        s, y = (torch.where(curved[:, None], v, 0.0) for v in (s, y))
        b = (s * y).sum(1, keepdim=True)
        pairs = [*pairs[1 - history :], (s, y, torch.where(b > 0, 1 / b, 0.0))] if history > 1 else [(s, y, 1 / b)]
        diagonal = torch.where(curved[:, None], _diagonal(diagonal, s, y, b), diagonal)
        inverse = _inverse(diagonal, pairs)
        z, value, gradient = new, there, pull
        yield Iterate(z, value, gradient, inverse, moving)


def _search(look, z, value, gradient, way, slope) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Steps of each path that raise the value enough and leave the slope low enough; who found none stays."""
    p = len(z)
    low, high, t = torch.zeros(p).to(slope), torch.full((p,), torch.inf).to(slope), torch.ones(p).to(slope)
    new, there, pull, moved = z.clone(), value.clone(), gradient.clone(), torch.zeros(p, dtype=torch.bool)
    # nothing is gained any more where the slope is below the value's rounding
    open_ = (slope > 1e-13 * (1 + value.abs())).nonzero().flatten()
    for _ in range(HALVINGS):
        if not len(open_):
            break
        at = z[open_] + t[open_, None] * way[open_]
        v, g = look(at)
        enough = v >= value[open_] + ARMIJO * t[open_] * slope[open_]
        flat = (way[open_] * g).sum(1) <= WOLFE * slope[open_]
        keep = open_[enough]  # a step that only rises is better than none
        new[keep], there[keep], pull[keep], moved[keep] = at[enough], v[enough], g[enough], True
        high[open_[~enough]] = t[open_[~enough]]
        low[open_[enough & ~flat]] = t[open_[enough & ~flat]]
        t = torch.where(high.isinf(), 2 * t, 0.5 * (low + high))
        open_ = open_[~(enough & flat)]
    return new, there, pull, moved


def _diagonal(diagonal: Tensor, s: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """(P, d) the diagonal after one update by BFGS of the diagonal matrix, scaled to the new curvature."""
    a, c = (y.square() * diagonal).sum(1, keepdim=True), (s.square() / diagonal).sum(1, keepdim=True)
    return 1 / (a / (b * diagonal) + y.square() / b - a * s.square() / (b * c * diagonal.square()))


def _inverse(diagonal: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """(P, d, d) H, updated pair by pair: (I - r s y^T) H (I - r y s^T) + r s s^T."""
    h = torch.diag_embed(diagonal)
    for s, y, r in pairs:
        hy = torch.einsum("pij,pj->pi", h, y)
        gain = r + r.square() * (y * hy).sum(1, keepdim=True)
        cross = (r[:, :, None] * s[:, :, None]) * hy[:, None, :]
        h = h - cross - cross.mT + (gain * s)[:, :, None] * s[:, None, :]
    return h
