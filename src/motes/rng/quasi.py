"""Points that fill the unit cube evenly and yet are each uniform: scrambled Sobol points and shifted lattices."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from motes.errors import MotesError

from .rng import Rng

LEVELS = 20
"""Binary digits that are scrambled one by one, each by a bit of its own; those below are random for each point."""
DIMENSIONS = 1 << (32 - LEVELS)
CANDIDATES = 50
GOLDEN = (math.sqrt(5) - 1) / 2


def sobol(rng: Rng, n: int, d: int) -> Tensor:
    """(n, d) points of a Sobol sequence with nested uniform scrambling (Owen's), in the open unit cube.

    Each point is uniform; together any 2^k consecutive points from a multiple of 2^k on are as even as the sequence
    allows. A mean of a smooth function over n = 2^k points has a standard deviation of about n^(-3/2), and for no
    square-integrable function is it much worse than with independent points. A point depends on its number and the
    address alone, not on n: point i of a shard is particle i.

    Digit k of a coordinate is flipped by a random bit that belongs to the digits before it (the node of a binary tree);
    the bit's address is the node. Digits below the 20th are plain random numbers. Direction numbers are torch's (Joe &
    Kuo).

    References:
        Owen (1997), Scrambled net variance for integrals of smooth functions, Annals of Statistics 25(4).
        Joe & Kuo (2008), Constructing Sobol sequences with better two-dimensional projections, SIAM J. Sci. Comput. 30.

    Args:
        rng: where the scrambling comes from; a bound shard chooses the points.
        n: how many points.
        d: coordinates, up to 4096.

    Raises:
        ValueError: more coordinates or points than the tables hold.
    """
    index = _index(rng, n, 1 << 30)
    if not 1 <= d <= DIMENSIONS:
        raise MotesError(f"sobol: d must be in 1..{DIMENSIONS}, not {d}")
    digits = _sobol_digits(index, d) >> (30 - LEVELS)
    whole, out = rng.at("sobol"), torch.zeros_like(digits)
    dimension = torch.arange(d, device=digits.device) << LEVELS
    for k in range(LEVELS):
        node = dimension + (1 << k) + (digits >> (LEVELS - k))  # a heap: no two nodes share a number
        flip = whole.shard(node.reshape(-1)).bits((node.numel(),)).reshape(node.shape) >> 31
        digit = digits >> (LEVELS - 1 - k) & 1
        out = out << 1 | (digit ^ flip)
    low = rng.at("sobol-low").bits((n, d))
    return ((out << 32 | low).to(torch.float64) + 0.5) * 2.0**-52


def lattice(rng: Rng, n: int, d: int, total: int | None = None) -> Tensor:
    """(n, d) points of a rank-one lattice with a random shift, u_i = frac(i z / n + shift), in the open unit cube.

    Each point is uniform; a mean of a smooth periodic function has an error of about 1/n^2 or better, of another smooth
    function about 1/n, and of a rough one about that of independent points. The generating vector z is found coordinate
    by coordinate: of 50 candidates the one with the least worst-case error (P_2, coordinate j weighted by 1/j^2).

    References:
        Cranley & Patterson (1976), Randomization of number theoretic methods for multiple integration, SIAM J. Numer.
        Anal. 13.
        Sloan & Reztsov (2002), Component-by-component construction of good lattice rules, Math. Comp. 71.

    Args:
        rng: where the shift comes from; a bound shard chooses the points.
        n: how many points.
        d: coordinates.
        total: points of the whole lattice, where this is a shard; None is n.
    """
    total = n if total is None else total
    if rng.ids is not None and total < n:
        raise MotesError(f"lattice: a shard of {n} points cannot be of a lattice of {total}")
    index = _index(rng, n, total)
    if d < 1:
        raise MotesError(f"lattice: d must be at least 1, not {d}")
    z = torch.tensor(_generator(total, d), device=index.device)
    shift = rng.at("lattice").shard(torch.arange(d)).uniform((d,)) if d else torch.empty(0)
    place = (index[:, None] * z % total).to(torch.float64) / total + shift
    return (place - place.floor()).clamp(2.0**-53, 1 - 2.0**-53)


POINTS = {"sobol": sobol, "lattice": lattice}


def _index(rng: Rng, n: int, most: int) -> Tensor:
    if n < 1 or n > most:
        raise MotesError(f"there are 1 to {most} points, not {n}")
    if rng.ids is None:
        return torch.arange(n, device=rng.device)
    if len(rng.ids) != n or int(rng.ids.max()) >= most:
        raise MotesError(f"a shard of {len(rng.ids)} points up to number {int(rng.ids.max())} is no {n} of {most}")
    return rng.ids


def _sobol_digits(index: Tensor, d: int) -> Tensor:
    """(n, d) the first 30 binary digits of unscrambled Sobol points, as whole numbers."""
    direction = torch.quasirandom.SobolEngine(d, scramble=False).sobolstate.to(index.device)  # (d, 30)
    gray = index ^ (index >> 1)
    out = torch.zeros(len(index), d, dtype=torch.int64, device=index.device)
    for k in range(int(index.max()).bit_length()):
        out ^= torch.where((gray >> k & 1).bool()[:, None], direction[:, k], 0)
    return out


@lru_cache(maxsize=16)
def _generator(n: int, d: int) -> tuple[int, ...]:
    """The generating vector of a lattice of n points."""
    fair = [c for c in range(1, n // 2 + 1) if math.gcd(c, n) == 1] if n <= 4096 else []
    if not fair:  # spread candidates evenly, and step to the next that has no factor in common with n
        for k in range(CANDIDATES):
            c = int((0.5 + k * GOLDEN) % 1 * (n // 2)) + 1
            while math.gcd(c, n) != 1:
                c += 1
            fair.append(c)
    index = torch.arange(n)
    product, found = torch.ones(n, dtype=torch.float64), []
    for j in range(d):
        step = max(1, len(fair) // CANDIDATES)
        start = j % step
        best, chosen, least = None, 1, math.inf
        for c in fair[start::step]:
            x = (index * c % n).to(torch.float64) / n
            term = 1 + 2 * math.pi**2 * (x * x - x + 1 / 6) / (j + 1) ** 2  # Bernoulli's second polynomial
            worst = float(product @ term)
            if worst < least - 1e-12 * abs(least if math.isfinite(least) else 0):
                best, chosen, least = term, c, worst
        assert best is not None
        product, found = product * best, [*found, chosen]
    return tuple(found)
