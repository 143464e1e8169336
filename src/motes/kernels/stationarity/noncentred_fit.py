"""The map to non-centred coordinates that fits a population."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.kernels.stationarity.dependence import ENOUGH, Dependence
from motes.kernels.stationarity.noncentred import BEYOND, Map, narrow, wide


def fit_map(position: Tensor, weight: Tensor, dependence: Dependence) -> Map | None:
    """The map for a population at `position` (N, d) with normalised weights (N,); None where they are too few
    (or too many are copies of one another).

    Each half of the population gets the map that was fitted to the other half, as in `kernels.scale`, so that no
    particle's move depends on itself.
    """
    x = position.detach().to(torch.float64)
    half = (len(x) + 1) // 2
    fits = []
    for part in (slice(half, None), slice(0, half)):
        w = weight[part]
        total = float(w.sum())
        if total <= 0 or total**2 / float(w.square().sum()) < ENOUGH * dependence.numbers:
            return None
        fits.append(_fit(x[part], w / total, dependence))
        if not all(bool(torch.isfinite(v).all()) for v in fits[-1].values()):
            return None
    return {**{k: torch.stack([f[k] for f in fits]) for k in fits[0]}, "dependence": dependence.to_json()}


def _fit(x: Tensor, w: Tensor, dependence: Dependence) -> dict[str, Tensor]:
    """Maximum likelihood of x_B given the others as normal: Fisher scoring for scales, least squares for means."""
    a, y = x[:, [*dependence.parents, *dependence.beside]], x[:, list(dependence.children)]
    size, k = 1 / float(w.square().sum()), len(dependence.parents)
    centre = w @ a
    spread = (w @ (a - centre).square()).sqrt().clamp(min=1e-12)
    t = (a - centre) / spread
    lines = narrow(t[:, :k])
    level = w @ y
    width = (w @ (y - level).square()).sqrt().clamp(min=1e-12)
    y = (y - level) / width  # so that the ridge knows the unit
    log_scale = torch.zeros(y.shape[1], lines.shape[1], dtype=x.dtype)
    small = _ridge(lines.shape[1], size)
    information = 2 * torch.einsum("n,np,nq->pq", w, lines, lines) + small
    for _ in range(15):
        s = lines @ log_scale.mT
        features = wide(s, t[:, k:])
        normal, right = _equations(w, s, features, y, size)
        mean = _solved(normal, right[..., None])[..., 0]
        left = y - torch.einsum("nbp,bp->nb", features, mean)
        score = (left.square() * torch.exp(-2 * s) - 1).clamp(max=8.0)
        slope = torch.einsum("n,nb,np->bp", w, score, lines) - log_scale * small.diagonal()
        log_scale = log_scale + _solved(information, slope.mT).mT.clamp(-1.0, 1.0)
    noise = _solved(information, torch.eye(len(information), dtype=x.dtype)).diagonal()[1:] / size
    middle, between = _common(log_scale[:, 1:], noise.expand(len(log_scale), -1))
    log_scale[:, 1:] = middle + (log_scale[:, 1:] - middle) * between / (between + noise)
    s = lines @ log_scale.mT
    mean = _kindred(w, s, wide(s, t[:, k:]), y, size, level, width)
    alive = s[w > 0]
    limit = torch.stack([alive.amin(0) - BEYOND, alive.amax(0) + BEYOND]) + width.log()
    mean = mean * width[:, None]
    mean[:, 0] += level
    log_scale[:, 0] += width.log()
    numbers = {"centre": centre, "spread": spread, "mean": mean, "log_scale": log_scale}
    return {**numbers, "unit": width.log(), "limit": limit}


def _kindred(w: Tensor, s: Tensor, features: Tensor, y: Tensor, size: float, level: Tensor, width: Tensor) -> Tensor:
    """(b, p) the coefficients of means, with what holds in the neck drawn to what the children have in common.

    Effects around one location have all the same mean where their scale vanishes; there few particles are, and those of
    all children together tell it better than those of each.
    """
    normal, right = _equations(w, s, features, y, size)
    own = _solved(normal, right[..., None])[..., 0]
    p = features.shape[2]
    which = [0, *range(3, 3 + (p - 3) // 2)]
    unit = width[:, None]
    noise = torch.linalg.inv_ex(normal)[0].diagonal(dim1=1, dim2=2)[:, which] * unit.square() / size
    raw = own[:, which] * unit
    raw[:, 0] += level
    middle, between = _common(raw, noise)
    goal, pull = torch.zeros_like(own), torch.zeros_like(own)
    offset = torch.zeros_like(raw)
    offset[:, 0] = level
    goal[:, which] = (middle - offset) / unit
    pull[:, which] = unit.square() / (size * (between + 1e-6 * noise.mean(0)))
    return _solved(normal + torch.diag_embed(pull), (right + pull * goal)[..., None])[..., 0]


def _equations(w: Tensor, s: Tensor, features: Tensor, y: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Matrices (b, p, p) and right sides (b, p) of the least squares for means, given log scales."""
    weighted = (w[:, None] * torch.exp(-2 * s))[..., None] * features
    normal = torch.einsum("nbp,nbq->bpq", weighted, features) + _ridge(features.shape[2], size)
    return normal, torch.einsum("nbp,nb->bp", weighted, y)


def _ridge(p: int, size: float) -> Tensor:
    ridge = torch.eye(p, dtype=torch.float64) / size
    ridge[0, 0] = 1e-12
    return ridge


def _common(value: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (p,) of the numbers (b, p) of b children, each known with variance `noise` (b, p), and how much they vary
    beyond that: empirical Bayes."""
    share = 1 / noise
    share = share / share.sum(0)
    mean = (share * value).sum(0)
    spread = (share * (value - mean).square()).sum(0) - (share * noise).sum(0) * (len(value) - 1) / len(value)
    return mean, spread.clamp(min=0.0)


def _solved(a: Tensor, b: Tensor) -> Tensor:
    """a^-1 b; not finite where a has no inverse."""
    found, failed = torch.linalg.solve_ex(a, b)
    return torch.where((failed != 0)[..., None, None], torch.nan, found)
