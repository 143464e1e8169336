"""What every evaluation of a density is held to: no NaN, no +inf, no gradient that is not finite.

`check` raises an error, which is for points where particles start or stand; `pardon` counts, which is for the trial
points of a move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from motes.core.remark import ALL, Remark
from motes.errors import NanLogPotential, name_particles
from motes.kernels import State, Undefined
from motes.laws.parameters import Values

LOST = -1e9
"""Nats below which a point is as good as outside of the support, so that its gradient may overflow."""
OFTEN = 0.01
"""The share of a step's moves that may meet undefined points without a remark."""
GRADIENTS = ("likelihood_gradient", "prior_gradient")
LOOK_FOR = "look for log or sqrt of a negative number, a matrix that is not positive definite, 0 * inf or an overflow"


def check(
    constrain: Callable[[Tensor], Values],
    likelihood: Tensor,
    inside: Tensor | None,
    z: Tensor,
    state: State | None,
    floor: float = -math.inf,
    raised: Exception | None = None,
) -> None:
    """No NaN and no +inf where the parameters are legal; outside the density is zero, with a zero gradient.

    Args:
        constrain: the parameters at z as the user means them, to name the first bad point.
        likelihood: (N,) log-likelihoods at z (N, dim).
        inside: (N,) where the parameters are legal; None is everywhere.
        state: what was evaluated at z, which is amended in place; None checks the log-likelihood only.
        floor: nats; a point whose log-prior is below has been reached by a trajectory that runs off, and where the
            likelihood overflows to NaN there it counts as outside of the support, which is a divergence.
        raised: what the user's function raised where the log-likelihood is NaN for lack of a better number.

    Raises:
        NanLogPotential: a value is NaN or +inf, or a gradient is not finite where the density is positive.
    """
    if state is not None and inside is None and _all_finite(state):
        return
    bad = ~(likelihood < math.inf)
    if state is not None and floor > -math.inf:
        off = ~torch.isfinite(state["log_prior"]) | bad
        for name in GRADIENTS:
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
        what = "is NaN or +inf" if raised is None else f"raises {_shown(raised)}"
        raise NanLogPotential(
            f"log_likelihood {what} for {name_particles(index.tolist())}; the first of them is at "
            f"{_named(constrain, z[index[:1]])}. Where the model is not defined it must return -inf; {LOOK_FOR}"
        ) from raised
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


def pardon(
    constrain: Callable[[Tensor], Values], inside: Tensor | None, state: State, raised: Exception | None = None
) -> Undefined | None:
    """What `check` refuses, as density zero with a zero gradient; `state` is amended in place.

    Args:
        constrain, inside, raised: see `check`.
        state: what was evaluated at the trial points "position" (N, dim).

    Returns:
        Where the law was undefined, None where nowhere.
    """
    if inside is None and _all_finite(state):
        return None
    likelihood, prior = state["log_likelihood"], state["log_prior"]
    outside = torch.zeros_like(prior, dtype=torch.bool) if inside is None else ~inside
    no_number = ~outside & ~((likelihood < math.inf) & (prior < math.inf))
    positive = ~outside & ~no_number & (likelihood > -math.inf) & (prior > -math.inf)
    finite = torch.ones_like(outside)
    for name in (name for name in GRADIENTS if name in state):
        finite &= torch.isfinite(state[name].flatten(1)).all(1)
    steep = positive & ~finite & ~((likelihood < LOST) | (prior < LOST))
    undefined = no_number | steep
    state["log_likelihood"] = torch.where(outside | undefined, -math.inf, likelihood)
    state["log_prior"] = torch.where(outside | undefined, -math.inf, prior)
    for name in (name for name in GRADIENTS if name in state):
        flat = (positive & ~undefined & torch.isfinite(state[name].flatten(1)).all(1)).view(
            -1, *[1] * (state[name].ndim - 1)
        )
        state[name] = torch.where(flat, state[name], 0.0)
    if not undefined.any():
        return None
    first = int(undefined.to(torch.uint8).argmax())
    what = "its gradient is not finite" if steep[first] else "it is NaN or +inf" if raised is None else _shown(raised)
    at = state["position"][first : first + 1].clone()
    return Undefined(undefined, lambda: f"{what} at {_named(constrain, at)}")


def _shown(error: Exception, most: int = 200) -> str:
    """An error of the user's function in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__} ({text[:most]}{'...' if len(text) > most else ''})"


def _check_gradient(constrain: Callable[[Tensor], Values], state: State) -> None:
    if _all_finite(state):
        return
    legal = (state["log_likelihood"] > -math.inf) & (state["log_prior"] > -math.inf)
    # a trajectory that diverges gets to where gradients overflow; nothing that far out is ever accepted
    lost = (state["log_likelihood"] < LOST) | (state["log_prior"] < LOST)
    for name in GRADIENTS:
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


def undefined_met(info: Mapping[str, Any]) -> list[Remark]:
    """A remark if moves of the last step met undefined points too often for that not to matter."""
    share = float(info.get("undefined", 0.0))
    if not share > OFTEN:
        return []
    return [
        Remark(
            f"{100 * share:.2g} % of the last moves met points where the density is undefined (not a number, or an "
            "error), which count as outside of the support: if the model is meant to hold there, every estimate "
            f"leaves that part out; {LOOK_FOR}",
            ALL,
        )
    ]
