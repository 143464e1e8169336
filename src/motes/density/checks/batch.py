"""Whether a log-likelihood is a function of its own point alone, and the same at every call."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.density.checks.finding import FAILED, OK, Finding, point
from motes.density.checks.gradient import coarse
from motes.laws.law import Law
from motes.rng import Rng

POINTS = 12


def batch(density: Law, rng: Rng) -> Finding:
    """The log-density of a point must not depend on the other points of its batch, nor on the call.

    The same points are evaluated twice, in reversed order, in halves and each beside copies of itself. No random
    error enters, so there are no false alarms beyond rounding, for which 1e-9 of the size is allowed (float32: 1e-4).
    """
    z = density.sample(rng.at("points"), POINTS)
    first = _value(density, z)
    if not torch.equal(first, _value(density, z)):
        where = int((first != _value(density, z)).nonzero()[:1].sum())
        return Finding(
            "batch", FAILED, f"two calls at the same points differ (first at {point(density.constrain(z), where)}): "
            "the log-likelihood draws random numbers or keeps a state; make it a plain function of its parameters",
        )  # fmt: skip
    half = POINTS // 2
    others = {
        "in another order": _value(density, z.flip(0)).flip(0),
        "in a batch of half the size": torch.cat([_value(density, z[:half]), _value(density, z[half:])]),
        "beside copies of itself": torch.stack([_value(density, z[i : i + 1].expand(3, -1))[0] for i in range(POINTS)]),
    }
    state = density.evaluate(z)
    tolerance = 1e-4 if coarse(density, z, state["log_likelihood"], state["log_prior"]) else 1e-9
    finite = torch.isfinite(first)
    size = first[finite].abs().amax().clamp_min(1.0) if finite.any() else torch.ones(())
    for how, value in others.items():
        off = torch.where(value == first, 0.0, (value - first).abs())
        worst = int(off.nan_to_num(nan=torch.inf).argmax())
        if not float(off[worst]) <= tolerance * float(size):
            return Finding(
                "batch", FAILED, f"the log-density of a point changes when it is evaluated {how}: "
                f"{float(first[worst]):.8g} against {float(value[worst]):.8g} at {point(density.constrain(z), worst)}; "
                "look for a mean, sum or maximum over the first axis, which counts points",
                {"difference": float(off[worst])},
            )  # fmt: skip
    return Finding("batch", OK, f"{POINTS} points have the same log-density in any batch and at every call")


def _value(density: Law, z: Tensor) -> Tensor:
    state = density.evaluate(z.contiguous())
    return state["log_likelihood"] + state["log_prior"]
