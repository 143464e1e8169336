"""The length of trajectories that all particles share: jittered by address, and learnt by the ChEES criterion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.kernels.kernel import Parameters, Sweep
from motes.rng import Rng

LENGTHS: Parameters = {"level": 0.0, "square": 0.0, "lessons": 0}
"""What belongs to the parameters of a kernel that learns its "length", beside that."""


def ideal_length(jitter: float) -> float:
    """The T that maximises the mean of sin^2(u T), which is ChEES of a standard Gaussian, over u in 1 - jitter to 1.

    It is pi / 2 without jitter, and 2.25, where tan 2T = 2T, with u in 0 to 1.
    """

    def loss(t: float) -> float:
        a, b = 2 * (1 - jitter) * t, 2 * t
        return math.cos(b) if jitter < 1e-3 else (math.sin(b) - math.sin(a)) / (b - a)

    low, high = 1.5, 2.3
    for _ in range(40):
        left, right = low + 0.38 * (high - low), high - 0.38 * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return 0.5 * (low + high)


def jittered_steps(rng: Rng, parameters: Parameters, jitter: float, most: int) -> int:
    """How many steps make u times the length, u uniform in 1 - jitter to 1: at most `most`.

    The u of a sweep is a van der Corput number of its address, shifted at random, so it goes on where parameters are
    frozen.
    """
    shift = float(rng.at("jitter", step=0, inner=0).uniform(()))
    u = (van_der_corput(rng.step + rng.inner) + shift) % 1.0
    length = parameters["length"] * (1 - jitter + jitter * u)
    # until the step has been too small and too large once, it may be so small that a trajectory has no end
    most = most if parameters["turns"] else min(most, 32)
    return min(max(1, math.ceil(length / parameters["step_size"])), most)


def van_der_corput(i: int) -> float:
    """The i-th number of the low-discrepancy sequence in base 2: the bits of i behind the point, mirrored."""
    return int(f"{i:b}"[::-1], 2) / 2 ** i.bit_length()


def rescaled(parameters: Parameters, scale: Tensor, x: Tensor, weight: Tensor, ideal: float) -> Parameters:
    """The parameters with a new scale, fitted to a population, and the length in its units.

    The length is the same one, but near what a Gaussian population of that shape needs: on one, ChEES has its first
    minimum at 1.7 times its maximum.

    Args:
        ideal: the best length for a standard Gaussian.
    """
    now, before = longest(x, weight, scale), longest(x, weight, parameters["scale"])
    if not (0 < now < math.inf and 0 < before < math.inf):
        return {**parameters, "scale": scale}
    ideal = min(now, math.sqrt(x.shape[1])) * ideal
    return {
        **parameters,
        "scale": scale,
        "length": min(max(parameters["length"] * now / before, ideal / 2), ideal * 1.6),
    }


def learnt(parameters: Parameters, sweep: Sweep, weight: Tensor, rate: float) -> Parameters:
    """The parameters with the length after a lesson: a step of Adam on its logarithm.

    Args:
        sweep: its `seen` is what `seen` below makes.
        rate: of Adam.
    """
    level, slope = criterion(sweep, weight, parameters["scale"])
    if not (0 < level < math.inf and 0 < abs(slope) < math.inf):
        return parameters
    n, level = parameters["lessons"] + 1, math.log(level)
    # far out, before equilibrium, ChEES is larger by many orders of magnitude: a geometric mean forgets that soon
    level = 0.9 * parameters["level"] + 0.1 * level
    slope = min(max(slope / math.exp(level / (1 - 0.9**n)), -5.0), 5.0)
    square = 0.95 * parameters["square"] + 0.05 * slope**2
    # Adam without momentum
    length = parameters["length"] * math.exp(rate * slope / math.sqrt(square / (1 - 0.95**n)))
    return {**parameters, "length": length, "level": level, "square": square, "lessons": n}


def seen(before: Tensor, after: Tensor, velocity: Tensor, length: float) -> dict[str, Tensor]:
    """What `learnt` needs to know of a sweep.

    Args:
        before: (N, d) positions.
        after: (N, d) proposals.
        velocity: (N, d) at the proposals, in white coordinates.
        length: of the trajectories.
    """
    time = torch.full((len(before),), length, dtype=before.dtype)
    return {"before": before, "after": after, "velocity": velocity, "length": time, "second": _second(len(before))}


def criterion(sweep: Sweep, weight: Tensor, scale: Tensor) -> tuple[float, float]:
    """ChEES at these lengths, and its derivative by log T; NaN if there is none."""
    x, y, v = (sweep.seen[k].to(weight) for k in ("before", "after", "velocity"))
    a = weight * sweep.acceptance.to(weight)
    if sweep.diverged is not None:
        a = torch.where(sweep.diverged, 0.0, a)
    total, second = a.sum(), sweep.seen["second"]
    if not float(total) > 0:
        return math.nan, math.nan
    before, after = _white(x - weight @ x, second, scale), _white(y - (a / total) @ y, second, scale)
    growth = after.square().sum(1) - before.square().sum(1)
    rise = sweep.seen["length"].to(weight) * growth * (after * v).sum(1)
    level, rise = (float(a @ torch.where(a > 0, f, 0.0)) / float(total) for f in (0.25 * growth.square(), rise))
    return level, rise


def longest(x: Tensor, weight: Tensor, scale: Tensor) -> float:
    """The standard deviation of the white coordinates, the longest counting most: sqrt(tr C^2 / tr C)."""
    x = x.to(weight)
    z = _white(x - weight @ x, _second(len(x)), scale) * weight.sqrt()[:, None]
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    return float((gram.square().sum() / gram.trace()).sqrt())


def _second(n: int) -> Tensor:
    """(n,) which particles have the second of the two scales; `learn` may be given several sweeps at once."""
    return torch.arange(n) >= (n + 1) // 2


def _white(rows: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    """S^-1 r for every row r (N, d)."""
    out, scale = torch.empty_like(rows), scale.to(rows)
    for s, mine in zip(scale, (~second, second), strict=True):
        r = rows[mine]
        out[mine] = r / s if s.ndim == 1 else torch.linalg.solve_triangular(s, r.T, upper=False).T
    return out
