"""Sobol' indices from one weighted sample: which inputs the variance of an output comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.estimate.estimate import Estimate
from motes.core.run import Run
from motes.core.weights import normalise
from motes.errors import MotesError, ShapeError

GROUPS = 20
"""Parts of the sample that are left out one at a time for the standard errors."""
SUSPICIOUS = 7.0
"""Student's t with 19 degrees of freedom exceeds this once in a million."""
NEIGHBOURS = 3
BLOCK = 1 << 22
EXACT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class Sensitivity:
    """First-order and total indices of each input.

    Attributes:
        names: of the inputs.
        first: Var(E[Y | X_i]) / Var(Y), what X_i explains alone; (d,).
        total: E[Var(Y | all but X_i)] / Var(Y), what is lost with it; (d,).
        variance: Var(Y).
    """

    names: tuple[str, ...]
    first: Estimate[Tensor]
    total: Estimate[Tensor]
    variance: float

    def __str__(self) -> str:
        width = max(len(n) for n in self.names)
        columns = zip(self.names, self.first.value, self.first.se, self.total.value, self.total.se, strict=True)
        rows = [f"{n:{width}}  {f:6.3f} ± {e:.3f}  {t:6.3f} ± {g:.3f}" for n, f, e, t, g in columns]
        return "\n".join([f"{'':{width}}  first           total", *rows])


def sobol_indices(
    x: Tensor,
    y: Tensor,
    *,
    log_weight: Tensor | None = None,
    names: tuple[str, ...] | None = None,
    group: Tensor | None = None,
    dependent: bool = False,
) -> Sensitivity:
    """First-order and total Sobol' indices of an output from one weighted sample of independent inputs.

    Both are one minus, or just, an average conditional variance over the variance. That of Y given X_u is the weighted
    variance of Y among the nearest points in X_u, u being one input (a window of about sqrt(N) / 2 points in its order;
    Gamboa et al. take two) or all but one (the 3 nearest, more where weights are uneven). Inputs count by their
    weighted ranks. Points that repeat are joined.

    Bias: neighbours are not quite at the same place. For the first-order index that makes an error of order 1/N; a
    total index comes out too large by order N^(-2/(d-1)), so with more than about six inputs it is an upper bound.
    Weights add an error of order one over the number of neighbours. Standard errors are by leaving out one of 20
    groups at a time and do not see the bias.

    Independence of the inputs is what gives the indices their meaning (parts of the variance that add up); it is
    checked by rank correlations, and a sample that fails is refused. That is so for most posteriors: a prior, or a
    design, is what to draw from.

    References:
        Gamboa, Gremaud, Klein & Lagnoux (2022), Global sensitivity analysis: a novel generation of mighty estimators
        based on rank statistics, Bernoulli 28(4), eq. 11.
        Broto, Bachoc & Depecker (2020), Variance reduction for estimation of Shapley effects and adaptation to unknown
        input distribution, SIAM/ASA J. Uncertainty Quantification 8(2), section 6.
        Sobol' (1993), Sensitivity estimates for nonlinear mathematical models, MMCE 1(4).

    Args:
        x: (N, d) inputs.
        y: (N,) output.
        log_weight: (N,) nats; None is equal weights.
        names: of the inputs.
        group: (N,) int64, points that may depend on each other share a number; None is all independent.
        dependent: go on with dependent inputs; the numbers are then conditional variances and do not add up.

    Raises:
        MotesError: the inputs are dependent, the output does not vary, or there are too few points.
        ShapeError: shapes do not fit or a number is not finite.
    """
    x, y, weight, group = _checked(x, y, log_weight, group)
    d = x.shape[1]
    names = names or tuple(f"x{k}" for k in range(d))
    rank = _ranks(x, weight)
    if not dependent:
        _independent(rank, weight, group, names)
    mean = weight @ y
    y = y - mean
    uneven = len(y) * float(weight.square().sum())
    near = math.ceil(NEIGHBOURS * uneven)
    parts = [_Neighbours.of(torch.cat([rank[:, :k], rank[:, k + 1 :]], 1), near) if d > 1 else None for k in range(d)]

    def indices(keep: Tensor) -> Tensor:
        w = torch.where(keep, weight, 0.0)
        w = w / w.sum()
        variance = w @ (y - w @ y).square()
        first = [variance - _window(rank[:, k], y, w, keep, uneven) for k in range(d)]
        total = [variance if p is None else p.variance(y, w, keep) for p in parts]
        return torch.stack([*first, *total]) / variance

    found = indices(torch.ones(len(y), dtype=torch.bool))
    without = torch.stack([indices(group != g) for g in range(GROUPS)])
    se = (without.var(0, correction=0) * (GROUPS - 1)).sqrt()
    method = f"leaving out one of {GROUPS} groups"
    first = Estimate(found[:d], se[:d], method=method)
    total = Estimate(found[d:], se[d:], method=method, bias="up, by order N^(-2/(d-1))")
    return Sensitivity(names, first, total, float(weight @ y.square()))


def sensitivity(run: Run, f: Callable[[Any], Tensor] | str, *, dependent: bool = False) -> Sensitivity:
    """Sobol' indices of f with respect to everything in the view of a run.

    Args:
        run: whose view holds numbers.
        f: as for `run.mean`, one number a particle.
        dependent: see `sobol_indices`.
    """
    run = run.alone("sensitivity")
    y = run.values(f)
    names, columns = [], []
    for where, leaf in tree.leaves(run.flat, ""):
        flat = leaf.reshape(len(leaf), -1)
        name = where.strip("[]").replace("'", "") or "x"
        names += [name if flat.shape[1] == 1 else f"{name}[{k}]" for k in range(flat.shape[1])]
        columns.append(flat.to(torch.float64))
    if not run.shown.weighted:
        draws = len(y) // run.n
        long = run.n < GROUPS
        group = torch.arange(draws).repeat(run.n) * GROUPS // draws if long else torch.arange(len(y)) // draws
    else:
        group = run.genealogy.anchors[0].slot.long()
    log_weight = run.log_weight if run.shown.weighted else None
    x = torch.cat(columns, 1)
    found = sobol_indices(x, y, log_weight=log_weight, names=tuple(names), group=group, dependent=dependent)
    doubt = run.weighted_sample.doubt
    return replace(found, first=found.first.doubted(doubt), total=found.total.doubted(doubt))


def _checked(
    x: Tensor, y: Tensor, log_weight: Tensor | None, group: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points with positive weight, each once, their weights, and one of 20 groups for each."""
    n = len(x)
    if x.ndim != 2 or y.shape != (n,):
        raise ShapeError(f"inputs must be (N, d) and the output (N,), not {tuple(x.shape)} and {tuple(y.shape)}")
    weight = torch.full((n,), 1 / max(n, 1), dtype=torch.float64) if log_weight is None else normalise(log_weight)
    group = torch.arange(n) if group is None else group
    alive = weight > 0
    rows = torch.cat([x.to(torch.float64), y.to(torch.float64)[:, None]], 1)[alive]
    if not torch.isfinite(rows).all():
        raise ShapeError("an input or the output is not finite where there is weight")
    unique, place = rows.unique(dim=0, return_inverse=True)
    joined = torch.zeros(len(unique), dtype=torch.float64).index_add_(0, place, weight[alive])
    of = torch.zeros(len(unique), dtype=torch.int64)
    of = of.scatter_reduce_(0, place, group[alive], "amin", include_self=False)
    # numbered anew: families whose numbers have gaps would leave some of the 20 parts empty
    families, of = of.unique(return_inverse=True)
    size = 1 / float(joined.square().sum())
    if size < 5 * GROUPS or len(families) < GROUPS:
        raise MotesError(f"{size:.0f} effective points are too few for indices with errors: {5 * GROUPS} are the least")
    y = unique[:, -1]
    if not float(y.max()) > float(y.min()):
        raise MotesError("the output does not vary, so there is no variance to share out")
    return unique[:, :-1], y, joined, of % GROUPS


def _ranks(x: Tensor, weight: Tensor) -> Tensor:
    """(N, d) the weighted distribution function of each input, at the middle of its step."""
    order = x.argsort(dim=0, stable=True)
    sorted_weight = weight[order]
    return torch.zeros_like(x).scatter_(0, order, sorted_weight.cumsum(0) - sorted_weight / 2)


def _independent(rank: Tensor, weight: Tensor, group: Tensor, names: tuple[str, ...]) -> None:
    """Ranks, and their distances from the middle, are uncorrelated as far as the groups can tell."""
    d = rank.shape[1]
    features = torch.cat([rank - 0.5, (rank - 0.5).abs() - 0.25], 1)
    features = features - weight @ features
    found = []
    for g in range(GROUPS):
        w = torch.where(group == g, weight, 0.0)
        found.append(features.T @ (w[:, None] * features) / w.sum())
    covariance = torch.stack(found)
    t = covariance.mean(0).abs() / (covariance.std(0) / math.sqrt(GROUPS)).clamp_min(1e-300)
    same = torch.eye(d, dtype=torch.bool).repeat(2, 2)
    t = torch.where(same, 0.0, t)
    if float(t.max()) > SUSPICIOUS:
        i, j = sorted(k % d for k in divmod(int(t.argmax()), 2 * d))
        raise MotesError(
            f"the inputs {names[i]!r} and {names[j]!r} depend on each other, so Sobol' indices do not share "
            "out the variance. Draw the inputs independently, or say dependent=True for conditional variances"
        )


def _window(rank: Tensor, y: Tensor, w: Tensor, keep: Tensor, uneven: float) -> Tensor:
    """The mean over the points of the weighted variance of y in a window around them in the order of one input."""
    order = rank.argsort(stable=True)
    order = order[keep[order]]
    w, y = w[order], y[order]
    n = len(y)
    half = min(max(1, math.ceil(math.sqrt(n) / 4 * uneven)), (n - 1) // 2)
    start = (torch.arange(n) - half).clamp(0, n - 2 * half - 1)
    terms = torch.stack([w, w * y, w * y.square(), w.square()])
    sums = torch.cat([torch.zeros(4, 1).double(), terms.cumsum(1)], 1)
    s, sy, syy, ss = sums[:, start + 2 * half + 1] - sums[:, start]
    return w @ _variance(s, sy, syy, ss)


def _variance(s: Tensor, sy: Tensor, syy: Tensor, ss: Tensor) -> Tensor:
    """Unbiased weighted variances from sums of w, w y, w y^2 and w^2."""
    lone = 1 - ss / s.square()
    return torch.where(lone > 1e-9, (syy / s - (sy / s).square()).clamp_min(0) / lone.clamp_min(1e-9), 0.0)


@dataclass(frozen=True)
class _Neighbours:
    """(N, K) the nearest points of each, itself first, more than are needed so that groups can be left out."""

    index: Tensor
    near: int

    @classmethod
    def of(cls, x: Tensor, near: int) -> _Neighbours:
        most = min(len(x), 2 * near + 10)
        size = max(1, BLOCK // len(x))
        parts = [
            torch.cdist(part, x, compute_mode=EXACT).topk(most, 1, largest=False).indices for part in x.split(size)
        ]
        return cls(torch.cat(parts), near)

    def variance(self, y: Tensor, w: Tensor, keep: Tensor) -> Tensor:
        """The mean over the points that are kept of the weighted variance of y among their nearest."""
        there = keep[self.index]
        v = torch.where(there & (there.cumsum(1) <= self.near + 1), w[self.index], 0.0)
        z = y[self.index]
        sums = [v.sum(1), (v * z).sum(1), (v * z.square()).sum(1), v.square().sum(1)]
        return w @ torch.where(keep, _variance(*sums), 0.0)
