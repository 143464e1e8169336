"""Gradients against finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.density.checks.finding import FAILED, OK, SKIPPED, Finding, coordinates, point
from motes.laws.law import Law
from motes.rng import Rng

WORK = 2048
"""Pairs of a point and a coordinate that are looked at."""


def gradient(density: Law, rng: Rng) -> Finding:
    """The gradients of log-likelihood and log-prior, each, against central differences at draws from the prior.

    With D(h) = (f(z + h e) - f(z - h e)) / 2h, the value is Richardson's (4 D(h/2) - D(h)) / 3. The tolerance is
    |D(h/2) - D(h)|, plus what rounding does to D, plus 1e-5 of the slope (float32: 1e-2), so that a kink within the
    step makes no false alarm. Where `coarse` finds values computed in float32, float32's tolerance
    holds. A gradient that is zero everywhere while the function changes along the coordinate is reported too:
    differences would agree with it where the function is piecewise constant.

    Catches an error of about 1e-5 of a slope in float64.
    """
    if not density.differentiable or density.levels is not None:
        return Finding("gradient", SKIPPED, "no gradients flow through the log-likelihood, so none can be wrong; "
                       "write it with torch operations to use kernels with gradients")  # fmt: skip
    names, d = coordinates(density), density.dim
    n = min(32, max(4, WORK // d))
    z = density.sample(rng.at("points"), n)
    state = density.evaluate(z, gradient=True)
    parts = ("log_likelihood", "log_prior")
    single = coarse(density, z, state["log_likelihood"], state["log_prior"])
    h = (0.02 if single else 1e-3) * z.abs().clamp_min(1.0)
    eps = torch.finfo(torch.float32 if single else density.dtype).eps
    wide, narrow = _differences(density, z, h, parts), _differences(density, z, h / 2, parts)
    other = density.sample(rng.at("elsewhere"), n)
    moved = density.evaluate(
        torch.where(torch.eye(d, dtype=torch.bool)[None], other[:, None], z[:, None]).flatten(0, 1)
    )
    for part in parts:
        slope = state[part.removeprefix("log_") + "_gradient"].double()
        d1, d2 = wide[part], narrow[part]
        found = (4 * d2 - d1) / 3
        rounding = 100 * eps * state[part].abs().clamp_min(1.0)[:, None] / h.double()
        allowed = (d2 - d1).abs() + rounding + (1e-2 if single else 1e-5) * found.abs()
        excess = torch.where(torch.isfinite(found), (slope - found).abs() / allowed, 0.0)
        i, k = divmod(int(excess.argmax()), d)
        where, what = point(density.constrain(z), i), part.replace("_", "-")
        if float(excess[i, k]) > 1:
            bad = [names[j] for j in (excess > 1).any(0).nonzero().flatten().tolist()]
            return Finding(
                "gradient", FAILED, f"the gradient of the {what} is wrong for {', '.join(bad[:6])}; "
                f"worst for {names[k]}: "
                f"autograd says {float(slope[i, k]):.6g}, differences say {float(found[i, k]):.6g} at {where}. Look "
                "for detach(), .data, .item(), numpy, or a gradient of your own", {"parameters": bad},
            )  # fmt: skip
        change = moved[part].reshape(n, d) - state[part][:, None]
        flat = (slope == 0).all(0) & ((change.abs() > rounding * h.double()) & torch.isfinite(change)).any(0)
        if flat.any():
            bad = [names[j] for j in flat.nonzero().flatten().tolist()]
            return Finding(
                "gradient", FAILED, f"the gradient of the {what} is zero everywhere for {', '.join(bad[:6])}, though "
                "its value changes: it is piecewise constant there (round, floor, a comparison, an index), so use a "
                "kernel without gradients, like kernel='random-walk'", {"parameters": bad},
            )  # fmt: skip
    note = "" if not single else ", to the few digits of float32, in which some of it is computed"
    said = f"{d} derivatives of each part agree with differences at {n} draws from the prior{note}"
    return Finding("gradient", OK, said, {"float32": single})


def coarse(density: Law, z: Tensor, *values: Tensor) -> bool:
    """Whether log-densities at z carry the rounding errors of float32, as with data of that type.

    A second difference over a step of 1e-7 is about 1e-14 of a curvature, unless rounding makes it larger.
    """
    if density.dtype == torch.float32:
        return True
    step = 1e-7 * z.abs().clamp_min(1.0)
    up, down = density.evaluate(z + step), density.evaluate(z - step)
    for value, part in zip(values, ("log_likelihood", "log_prior"), strict=True):
        rest = (up[part] - 2 * value + down[part]).abs() / value.abs().clamp_min(1.0)
        if bool((torch.isfinite(rest) & (rest > 1e-9)).any()):
            return True
    return False


def _differences(density: Law, z: Tensor, h: Tensor, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Central differences (N, dim) of each part."""
    n, d = z.shape
    step = torch.diag_embed(h)
    up, down = ((z[:, None] + s * step).flatten(0, 1) for s in (1, -1))
    above, below, width = density.evaluate(up), density.evaluate(down), (up - down).double().sum(1)
    return {p: ((above[p] - below[p]) / width).reshape(n, d) for p in parts}
