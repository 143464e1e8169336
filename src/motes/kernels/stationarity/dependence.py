"""Which coordinates of a population have a scale that depends on other coordinates, as below a hierarchical prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

EFFECT = 0.3
"""Nats by which the logarithm of a scale must vary with another coordinate (standard deviation) to be taken out: less
than that costs a few percent of the acceptance."""
FAINT = 0.15
"""The same once it is known that scales depend on something."""
SURE, KIN = 5.0, 2.5
"""Standard errors by which such a dependence must differ from none; and by which that of a coordinate must once others
are known to depend on the same. One that is left as it is keeps the neck shut for all of them."""
PARENTS = 8
"""The most coordinates on which scales may depend."""
LARGEST = 256
"""The most dimensions in which all pairs of coordinates are looked at."""
HINTED = 0.02
"""The probability at which `scales_depend` is true of a population in which scales do not depend on anything."""
LOCATIONS = 4
"""The most coordinates around which others are centred."""
BESIDE, TIED = 16, 0.1
"""The most further coordinates on which means may depend, and the correlation that they must have with a child."""
ENOUGH, UNEVEN = 10, 0.8
"""Effective particles of a half for each number that is fitted to a coordinate, and the part of its share of the
effective particles that a half is counted on to have."""


@dataclass(frozen=True)
class Dependence:
    """Coordinates by what they are to each other, as tuples of indices.

    Attributes:
        parents: on which scales (and means) depend.
        beside: on which means alone depend.
        children: whose scales and means depend on them.
    """

    parents: tuple[int, ...]
    beside: tuple[int, ...]
    children: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers a child's mean or scale is fitted with."""
        return 1 + 2 * len(self.parents) + len(self.beside)

    def to_json(self) -> list[list[int]]:
        """The indices, for a file."""
        return [list(self.parents), list(self.beside), list(self.children)]

    def wider(self, other: Dependence | None) -> Dependence:
        """The other if it has more children, else this."""
        return self if other is None or len(other.children) <= len(self.children) else other

    @classmethod
    def from_json(cls, value: list[list[int]]) -> Dependence:
        """What `to_json` described."""
        return cls(*(tuple(v) for v in value))


def find_dependence(position: Tensor, weight: Tensor, least: float = EFFECT) -> Dependence | None:
    """The dependence of scales in a population at `position` (N, d) with normalised weights (N,), if any.

    A scale is looked at as it is and given all other coordinates, and must vary much (by `least` nats) and surely.
    """
    x = position.detach().to(torch.float64)
    size, d = 1 / float(weight.square().sum()), x.shape[1]
    if not 2 <= d <= LARGEST or not bool(torch.isfinite(x).all()):
        return None
    t = x - weight @ x
    spread = (weight @ t.square()).sqrt()
    if size < 30 or not bool((spread > 0).all()):
        return None
    t = t / spread
    covariance = t.mT @ (weight[:, None] * t)
    shrunk = covariance * (1 - (d + 1) / (size + d + 1))
    shrunk.diagonal().copy_(covariance.diagonal() * (1 + 1e-9))
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    partial = t @ torch.cholesky_inverse(factor) if not failed else t
    views = [t, partial]  # as they are, and given all others
    effect = torch.stack([_effect(v, t, weight, size, least) for v in views]).amax(0)
    effect.fill_diagonal_(0.0)
    parents: list[int] = []
    children: set[int] = set()
    for _ in range(PARENTS):
        effect[parents] = 0.0  # a parent's scale stays as it is
        total = effect.square().sum(0)
        total[[*parents, *children]] = 0.0  # and a child is no parent
        j = int(total.argmax())
        if float(total[j]) == 0:
            break
        # a linear dependence alone can look like one of the scale where marginals are skewed
        rests = [_without(v, t[:, [j]], weight) for v in views]
        sure, kin = (
            torch.stack([_effect(r, t[:, [j]], weight, size, least, k)[:, 0] for r in rests]) for k in (SURE, KIN)
        )
        found = ((sure > 0) & (effect[:, j] > 0)).any(0)
        effect[:, j] = 0.0
        if bool(found.any()):
            parents.append(j)
            found |= (kin > 0).any(0) & (found.sum() > 1)
            children |= set(found.nonzero().flatten().tolist()) - {j}
    if not parents:
        return None
    beside = _locations(t, weight, size, least, parents, sorted(children - set(parents)), covariance)
    b = sorted(_found(t, weight, size, least, parents, sorted(children - {*parents, *beside}), beside))
    if not b:
        return None
    room = max(0, int(UNEVEN * size / 2 / ENOUGH) - Dependence(tuple(parents), tuple(beside), ()).numbers)
    tie = covariance[b].abs().amax(0)
    tie[[*parents, *b, *beside]] = 0.0
    tied = [j for j in tie.argsort(descending=True).tolist()[: min(BESIDE, room)] if float(tie[j]) > TIED]
    return Dependence(tuple(parents), tuple(sorted([*beside, *tied])), tuple(b))


def scales_depend(position: Tensor, weight: Tensor, family: Tensor) -> bool:
    """Whether the scales of all coordinates together vary with one of them, by more than chance allows.

    It finds less than `find_dependence` needs, and says not what depends on what.

    Args:
        position: (N, d).
        weight: (N,) normalised.
        family: (N,) int64 below N; particles that may depend on each other have the same number.
    """
    x = position.detach().to(torch.float64)
    d, many = x.shape[1], len(torch.unique(family))
    if not 2 <= d <= LARGEST or many < 10 or not bool(torch.isfinite(x).all()):
        return False
    t = x - weight @ x
    spread = (weight @ t.square()).sqrt()
    if not bool((spread > 0).all()):
        return False
    t = t / spread
    normal = NormalDist()
    limit, few = normal.inv_cdf(1 - HINTED / d), many - 1
    for j in range(d):
        others = [i for i in range(d) if i != j]
        rest = _without(t[:, others], t[:, [j]], weight)
        q = torch.log((rest / (weight @ rest.square()).sqrt().clamp(min=1e-12)).square() + 0.02)
        q = q - weight @ q
        each = torch.zeros_like(q).index_add_(0, family, weight[:, None] * q * t[:, [j]])
        unit = each / each.square().sum(0).sqrt().clamp(min=1e-300)
        total = float(unit.sum(0).square().mean()) * (few - 2) / few
        # the scores of scales that belong together vary together (Satterthwaite), and the cube root of chi-squared
        # over its freedom is nearly normal (Wilson and Hilferty)
        freedom = (d - 1) ** 2 / float((unit.mT @ unit).square().sum())
        if (total ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom)) > limit:
            return True
    return False


def _locations(
    t: Tensor, weight: Tensor, size: float, least: float, parents: list[int], of: list[int], c: Tensor
) -> list[int]:
    """The coordinates among `of` around whose value the scales of the others depend the most on the parents."""
    beside: list[int] = []
    best, most = beside, sum(_found(t, weight, size, least, parents, of, beside).values())
    while len(beside) < min(LOCATIONS, len(of) - 1):
        left = [j for j in of if j not in beside]
        beside = [*beside, max(left, key=lambda j: float(c[j, left].square().sum()))]
        total = sum(_found(t, weight, size, least, parents, [j for j in left if j not in beside], beside).values())
        if total > most:
            best, most = beside, total
    return best


def _found(
    t: Tensor, w: Tensor, size: float, least: float, parents: list[int], of: list[int], beside: list[int]
) -> dict[int, float]:
    """By how many nats the scales of those of the coordinates `of` depend on parents that do, once what is linear in
    the others is taken out."""
    if not of:
        return {}
    rest = _without(t[:, of], t[:, [*parents, *beside]], w)
    effect = _effect(rest, t[:, parents], w, size, least, KIN).amax(1)
    return {j: float(e) for j, e in zip(of, effect, strict=True) if e > 0}


def _without(rest: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    """`rest` (N, d) without what is linear in `t` (N, k)."""
    weighted = weight[:, None] * t
    eye = torch.eye(t.shape[1], dtype=t.dtype) * 1e-9
    return rest - t @ torch.linalg.solve(t.mT @ weighted + eye, weighted.mT @ rest)


def _effect(rest: Tensor, t: Tensor, weight: Tensor, size: float, least: float, surely: float = SURE) -> Tensor:
    """(d, k) by how many nats the log scale of each column of `rest` moves with a standard deviation of one of `t`."""
    rest = rest / (weight @ rest.square()).sqrt().clamp(min=1e-12)
    q = torch.log(rest.square() + 0.02)
    q = q - weight @ q
    cross = q.mT @ (weight[:, None] * t)
    sure = cross.abs() > surely * ((weight @ q.square())[:, None] / size).sqrt()
    effect = torch.where(sure, cross.abs() / 2, 0.0)
    return torch.where(effect > least, effect, 0.0)
