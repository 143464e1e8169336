"""Laws of resampling schemes: unbiased numbers of children, and what a scheme promises of them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from motes.core.resampling import Scheme, find_scheme
from motes.rng import Rng
from motes.testing.enumeration import enumerate_runs
from motes.testing.violation import LawViolation

INF = math.inf
WALKED: dict[str, tuple[float, ...]] = {
    "uneven": (0.3, -1.2, 0.9),
    "equal": (-2.0, -2.0, -2.0),
    "one of weight zero": (-INF, 0.1, 0.0),
    "one of positive weight": (-INF, 3.0, -INF),
    "far apart": (0.0, -1e300, -40.0),
    "one particle": (0.7,),
}
"""Log-weights for which every outcome is walked through."""
NUMBERS = (1, 4)
"""Numbers of children of three particles, for schemes that can make another number than there are."""
EXTREMES = torch.tensor([0.0, -INF, 0.69, -690.8, 690.8, -1e300, 1e300, -745.0], dtype=torch.float64)
DRAWN, MANY = 100, 100_003
"""Populations with drawn weights on which promises are tried, and particles of equal weight."""
EXACT, NEAR = 1e-12, 1e-9
"""How far a mean may be off by rounding, and the length of a stretch of the line."""


def check_scheme(scheme: str | Scheme, *, seed: int = 0) -> dict[str, float]:
    """Check that a resampling scheme is unbiased and keeps its promises.

    - "unbiased": E[children of i] = n W_i to 1e-12, by walking through every outcome for one and three particles.
    - "legal": parents (n,) int64 in range, none of weight zero, for weights of every size, ties and single particles.
    - "bounded" (schemes that say so): the number of children is within 1 of n W_i; with 100,003 equal weights each
      particle has one.
    - "address": the same address gives the same parents.

    There is no chance in it, so that it never fails for a scheme that is right. Takes seconds; the walk takes long for
    schemes that draw many numbers.

    Args:
        scheme: what is checked, or its name.
        seed: of the weights that are drawn.

    Returns:
        By law what was measured: the largest bias, or 0.

    Raises:
        LawViolation: a law does not hold; the message names weights and particle.
        MotesError: the scheme draws what cannot be enumerated.

    >>> from motes.testing import check_scheme
    >>> check_scheme("systematic")["unbiased"] < 1e-12
    True
    """
    scheme = find_scheme(scheme)
    found = {"unbiased": 0.0, "legal": 0.0, "bounded": 0.0, "address": 0.0}
    if not scheme.bounded:
        del found["bounded"]
    for j in range(DRAWN):
        rng = Rng(seed).at("weights", inner=j)
        size = 1 + int(rng.at("size").integers((), 40))
        extreme = EXTREMES[rng.at("extreme").integers((size,), len(EXTREMES))]
        w = torch.where(rng.at("kind").uniform((size,)) < 0.5, extreme, 20 * rng.normal((size,)))
        w[0] = 0.0 if w.max() == -INF else w[0]
        n = size if scheme.same_n else (size, 0, 1, 7, 100)[int(rng.at("n").integers((), 5))]
        promises(scheme, w, n, seed=j)
    if scheme.bounded:
        promises(scheme, torch.full((MANY,), -math.log(MANY), dtype=torch.float64), MANY, seed=seed)
    for log_weight in WALKED.values():
        numbers = (None, *NUMBERS) if log_weight is WALKED["uneven"] and not scheme.same_n else (None,)
        for n in numbers:
            found["unbiased"] = max(found["unbiased"], unbiased(scheme, log_weight, n))
    return found


def outcomes(
    scheme: Scheme, log_weight: tuple[float, ...], n: int | None = None, order: Tensor | None = None
) -> dict[tuple[int, ...], float]:
    """The law of the parents of `n` children (as many as there are particles if None), by every outcome."""
    w, law = torch.tensor(log_weight, dtype=torch.float64), dict[tuple[int, ...], float]()
    order = _order(scheme, w) if order is None else order
    for p, parent in enumerate_runs(lambda rng: tuple(scheme(rng, w, n=n, order=order).tolist())):
        law[parent] = law.get(parent, 0.0) + p
    return law


def collapsed(scheme: str | Scheme) -> Scheme:
    """The scheme with its whole draw as one decision among its outcomes, whose law is walked once for each weights.

    A walk through a run then need not look for the breakpoints of uniform numbers at every node again.
    """
    whole = find_scheme(scheme)

    @cache
    def law(log_weight: tuple[float, ...], n: int, order: tuple[float, ...] | None) -> dict[tuple[int, ...], float]:
        sort = None if order is None else torch.tensor(order, dtype=torch.float64)
        return outcomes(whole, log_weight, None if whole.same_n else n, sort)

    def draw(rng: Any, log_weight: Tensor, n: int, order: Tensor | None = None) -> Tensor:
        key = tuple((log_weight - log_weight.max()).tolist())
        found = law(key, n, None if order is None else tuple(order.tolist()))
        p = torch.tensor(list(found.values()), dtype=torch.float64)
        return torch.tensor(list(found)[int(rng.at("outcome").categorical(p.log()))])

    return replace(whole, function=draw)


def unbiased(scheme: Scheme, log_weight: tuple[float, ...], n: int | None = None) -> float:
    """The largest |E[children of i] - n W_i|, over every outcome.

    Raises:
        LawViolation: it is more than rounding makes.
    """
    law, n = outcomes(scheme, log_weight, n), len(log_weight) if n is None else n
    weight = torch.softmax(torch.tensor(log_weight, dtype=torch.float64), 0).tolist()
    mean = [math.fsum(p * parent.count(i) for parent, p in law.items()) for i in range(len(weight))]
    off = [abs(m - n * w) for m, w in zip(mean, weight, strict=True)]
    i = off.index(max(off))
    if off[i] > EXACT:
        raise LawViolation(
            "unbiased",
            f"{scheme.name} gives particle [{i}] {mean[i]:.6g} children on average and should give "
            f"{n * weight[i]:.6g}, for log-weights {log_weight} and n = {n}, over all {len(law)} "
            "outcomes. Are the places uniform, and is the slot that holds a place found from the right side?",
        )
    return off[i]


def promises(scheme: Scheme, log_weight: Tensor, n: int, *, seed: int) -> Tensor:
    """The numbers of children (N,) of one draw for log-weights (N,), of which some is positive.

    Raises:
        LawViolation: the parents are not what every scheme, or this one, promises.
    """
    rng, order = Rng(seed).at("resample", step=3), _order(scheme, log_weight)
    parent, again = (scheme(rng, log_weight, n=n, order=order) for _ in range(2))
    size = len(log_weight)
    where = f"seed {seed}, n = {n}, log-weights {log_weight[:8].tolist()}{', ...' if size > 8 else ''}"
    legal = parent.shape == (n,) and parent.dtype == torch.int64 and bool(((parent >= 0) & (parent < size)).all())
    if not legal:
        raise LawViolation(
            "legal",
            f"{scheme.name} must return ({n},) int64 parents in 0..{size - 1} and returned {tuple(parent.shape)} "
            f"{parent.dtype}{f' in {int(parent.min())}..{int(parent.max())}' if len(parent) else ''}; {where}",
        )
    children = torch.bincount(parent, minlength=size)
    if bool((children[log_weight == -INF] > 0).any()):
        i = int(torch.nonzero((log_weight == -INF) & (children > 0))[0, 0])
        raise LawViolation("legal", f"{scheme.name} chose particle [{i}], whose weight is zero; {where}")
    if not torch.equal(parent, again):
        i = int(torch.nonzero(parent != again)[0, 0])
        raise LawViolation(
            "address",
            f"{scheme.name} gave child [{i}] the parents {int(parent[i])} and {int(again[i])} at one address: draw "
            f"from the rng that is handed in; {where}",
        )
    expected = n * torch.softmax(log_weight, 0)
    off = (children - expected).abs()
    if scheme.bounded and bool((off >= 1 + NEAR).any()):
        i = int(off.argmax())
        raise LawViolation(
            "bounded",
            f"{scheme.name} promises numbers of children within 1 of n W and gives particle [{i}] {int(children[i])} "
            f"where n W is {float(expected[i]):.6g}; {where}",
        )
    if scheme.bounded and size > 1 and n == size and bool((log_weight == log_weight[0]).all() & (children != 1).any()):
        i = int((children - 1).abs().argmax())
        raise LawViolation(
            "bounded",
            f"{scheme.name} gives particle [{i}] {int(children[i])} children where all {size} weights are equal: are "
            f"sums made in float32? {where}",
        )
    return children


def _order(scheme: Scheme, log_weight: Tensor) -> Tensor | None:
    """Some order of the particles, for a scheme that sorts them."""
    return torch.arange(len(log_weight)).double().mul(2.3).sin() if scheme.needs_order else None
