"""Whether a density has a pole that no volume makes up for: its greatest values followed inwards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.remark import ALL, Remark
from motes.laws.law import Law
from motes.rng import Rng

OCTAVES, POINTS, REACH = 40, 32, 3.0
"""How often the search around the highest point is halved in size, the points that it evaluates each time, and over how
many octaves their distances spread."""
MARGIN, LAST = 6, 6
"""Octaves that rays from the point that was found keep away from it, and those before that are looked at."""
NEARLY = 0.98
"""The power of the distance, in units of the dimension, from which on a pole has infinite mass; a little less, since
the point is not known exactly."""
EARLY = 8
"""Octaves after which a search ends around which the density has risen by less than half of what a pole would."""

SAID = (
    "the posterior is improper: towards the point {point} its density grows like the distance to the power "
    "{power:.1f}, in {dim} dimension{s}, so that there is no normaliser. Look for a scale that the data let go to 0, a "
    "component of a mixture that holds a single point, or a division by what may vanish"
)


def pole(law: Law, z: Tensor) -> list[Remark]:
    """A remark that withholds all error bars if the law has infinite mass around a point; empty if it seems not.

    Near a point with a density like r^-a in d dimensions the mass is finite where a < d. From the highest particle a
    search goes to the highest of `POINTS` points nearby, then of those at smaller distances, and so on; around the
    point where it ends the log-density must rise by less than d log 2 with each halved distance. Where it does not rise
    at all the search ends soon. Curves of infinite density that end in no point are not seen.

    Args:
        z: (N, d) the last particles.
    """
    z = z[torch.isfinite(z).all(1)].to(torch.float64)
    n, d = z.shape
    if law.levels is not None or n < 2:
        return []
    height = _height(law, z)
    alive = height[height > -math.inf]
    if len(alive) < 2:
        return []
    centre = z[int(height.argmax())]
    spread = (z - z.median(0).values).abs().median(0).values
    # all particles may have fallen into the pole, and then know only it
    spread = torch.where(spread > 0, spread, centre.abs().clamp_min(1e-3))
    best, size, first = float(height.max()), 1.0, math.nan
    for k in range(OCTAVES * (1 + d)):
        r = Rng(0).at("pole", inner=k)
        length = size * torch.exp2(-REACH * r.at("length").uniform((POINTS, 1)))
        steps = length * r.at("direction").normal((POINTS, d))
        found = _height(law, centre + spread * steps)
        usual = float(found.median())
        first = usual if math.isnan(first) else first
        if size < 2.0**-EARLY and not usual - first > -0.5 * d * math.log(size):
            return []
        top = int(found.argmax())
        if float(found[top]) > best:
            best, centre = float(found[top]), centre + spread * steps[top]
            size = min(size, 2 * float(steps[top].norm()))
        else:
            size /= 2
        digits = 64 * torch.finfo(torch.float64).eps * centre.abs()
        if best == math.inf or size < 2.0**-OCTAVES or bool((spread * size < digits).all()):
            break
    reach = torch.exp2(-torch.arange(max(0, int(-math.log2(size)) - MARGIN), dtype=torch.float64))
    if len(reach) <= LAST:
        return []
    rays = Rng(0).at("pole").at("rays").normal((POINTS, d))
    points = centre + reach[:, None, None] * spread * rays
    level = _height(law, points.flatten(0, 1)).view(len(reach), POINTS).median(1).values
    power = float(level[-1] - level[-1 - LAST]) / (LAST * math.log(2))
    if not (math.isfinite(power) and power >= NEARLY * d):
        return []
    at = ", ".join(f"{v:.4g}" for v in centre[:4].tolist()) + (", ..." if d > 4 else "")
    said = SAID.format(point=f"({at})", power=-power, dim=d, s="s" * (d > 1))
    return [Remark(said, ALL, withholds=True)]


def _height(law: Law, z: Tensor) -> Tensor:
    """(N,) the log-density, -inf where it is undefined."""
    state, undefined = law.trial(z.to(law.dtype))
    height = state["log_prior"] + state["log_likelihood"]
    return height if undefined is None else torch.where(undefined.where, -math.inf, height)
