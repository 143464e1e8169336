"""What every evaluation of a density is held to: no NaN, no +inf, no gradient that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from motes.core.errors import NanLogPotential, name_particles
from motes.density.parameters import Values
from motes.kernels import State

LOST = -1e9
"""Nats below which a point is as good as outside of the support, so that its gradient may overflow."""


def check(
    constrain: Callable[[Tensor], Values],
    likelihood: Tensor,
    inside: Tensor | None,
    z: Tensor,
    state: State | None,
    floor: float = -math.inf,
) -> None:
    """No NaN and no +inf where the parameters are legal; outside the density is zero, with a zero gradient.

    Args:
        constrain: the parameters at z as the user means them, to name the first bad point.
        likelihood: (N,) log-likelihoods at z (N, dim).
        inside: (N,) where the parameters are legal; None is everywhere.
        state: what was evaluated at z, which is amended in place; None checks the log-likelihood only.
        floor: nats; a point whose log-prior is below has been reached by a trajectory that runs off, and where the
            likelihood overflows to NaN there it counts as outside of the support, which is a divergence.

    Raises:
        NanLogPotential: a value is NaN or +inf, or a gradient is not finite where the density is positive.
    """
    if state is not None and inside is None and _all_finite(state):
        return
    bad = ~(likelihood < math.inf)
    if state is not None and floor > -math.inf:
        off = ~torch.isfinite(state["log_prior"]) | bad
        for name in ("likelihood_gradient", "prior_gradient"):
            if name in state:
                off = off | ~torch.isfinite(state[name]).all(1)
        off = off & ~(state["log_prior"] > floor)
        if off.any():
            inside = ~off if inside is None else inside & ~off
            likelihood = torch.where(off, -math.inf, likelihood)
            bad = bad & ~off
    if inside is not None:
        bad &= inside
    if bad.any():
        index = bad.nonzero().flatten()
        raise NanLogPotential(
            f"log_likelihood is NaN or +inf for {name_particles(index.tolist())}; the first of them is at "
            f"{_named(constrain, z[index[:1]])}. Where the model is not defined it must return -inf; look for log of a "
            "negative number, 0 * inf or an overflow"
        )
    if state is None:
        return
    if inside is not None:
        state["log_likelihood"] = torch.where(inside, likelihood, -math.inf)
        state["log_prior"] = torch.where(inside, state["log_prior"], -math.inf)
    if not float(state["log_prior"].max()) < math.inf:
        index = (~(state["log_prior"] < math.inf)).nonzero().flatten()
        raise NanLogPotential(
            f"the prior's log-density is NaN or +inf for {name_particles(index.tolist())}; the first of them is at "
            f"{_named(constrain, z[index[:1]])}. Choose a prior with a finite density, or another parametrisation"
        )
    if "likelihood_gradient" in state:
        _check_gradient(constrain, state)


def _check_gradient(constrain: Callable[[Tensor], Values], state: State) -> None:
    names = ("likelihood_gradient", "prior_gradient")
    if _all_finite(state):
        return
    legal = (state["log_likelihood"] > -math.inf) & (state["log_prior"] > -math.inf)
    # a trajectory that diverges gets to where gradients overflow; nothing that far out is ever accepted
    lost = (state["log_likelihood"] < LOST) | (state["log_prior"] < LOST)
    for name in names:
        finite = torch.isfinite(state[name]).all(1)
        bad = (legal & ~lost & ~finite).nonzero().flatten()
        if len(bad):
            raise NanLogPotential(
                f"the {name.replace('_', ' ')} is not finite for {name_particles(bad.tolist())}, whose "
                "log-likelihood is; the first of them is at "
                f"{_named(constrain, state['position'][bad[:1]])}. Look for sqrt or log at 0, or torch.where around a "
                "NaN branch; or use a kernel without gradients, like RandomWalk"
            )
        state[name] = torch.where((legal & finite)[:, None], state[name], 0.0)


def _named(constrain: Callable[[Tensor], Values], z: Tensor, most: int = 8) -> str:
    values = constrain(z)
    named = {"x": values} if isinstance(values, Tensor) else values
    shown = []
    for name, value in named.items():
        flat = value[0].flatten().tolist()
        numbers = ", ".join(f"{v:.6g}" for v in flat[:most]) + (
            f", ... ({len(flat)} numbers)" if len(flat) > most else ""
        )
        shown.append(f"{name}={numbers if value.ndim == 1 else f'[{numbers}]'}")
    return ", ".join(shown[:most]) + (f", ... ({len(shown)} parameters)" if len(shown) > most else "")


def _all_finite(state: State) -> bool:
    """Whether every number of the state is: a sum is finite only if all its terms are."""
    values = [v.sum() for k, v in state.items() if k != "position"]
    return math.isfinite(float(torch.stack([v.to(torch.float64) for v in values]).sum()))
