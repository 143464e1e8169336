"""posteriordb's lotka_volterra on hudson_lynx_hare: lynx and hares in Canada, 1900 to 1920, d = 8."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import HalfNormal, LogNormal

from . import data
from .base import Named, Posterior, gathered, numbered, real, without

NAME = "hudson_lynx_hare-lotka_volterra"

# Blanes & Moan (2002), Practical symplectic partitioned Runge-Kutta and Runge-Kutta-Nystrom methods, table 2: order 4
A = (0.0792036964311957, 0.353172906049774, -0.0420650803577195)
A = (*A, 1 - 2 * sum(A), *A[::-1])
B = (0.209515106613362, -0.143851773179818)
B = (*B, 0.5 - sum(B))
B = (*B, *B[::-1])
STEPS = 2
"""Steps a year. Over the reference draws the largest error of a log population is 6.3e-5; Runge-Kutta 4(5) at the
tolerances of Stan's program (1e-5 relative, 1e-3 absolute) is off by 1e-3 on some of them."""


class Solution(torch.autograd.Function):
    """Log populations (years, 2, N) of hares and lynx for theta (4, N) and their logarithms at time 0 (2, N).

    In logarithms the equations are x' = alpha - beta exp y, y' = delta exp x - gamma, each of which moves one variable
    by what the other says, so that a splitting method applies. Its parts are x += A (alpha - beta exp y) and
    y += B (delta exp x - gamma), and the derivative goes through them backwards.
    """

    @staticmethod
    def forward(theta: Tensor, start: Tensor, years: int) -> tuple[Tensor, Tensor]:
        alpha, beta, gamma, delta = theta / STEPS
        grow = [(a * alpha, -a * beta, -b * gamma, b * delta) for a, b in zip(A, (*B, 0.0), strict=True)]
        exponential = theta.new_empty((years, STEPS, len(A), 2, theta.shape[1]))
        path = theta.new_empty((years, *start.shape))
        x, y = start[0].clone(), start[1].clone()
        for year in range(years):
            for step in range(STEPS):
                for (ax, bx, ay, by), (ex, ey) in zip(grow, exponential[year, step], strict=True):
                    x.add_(ax).addcmul_(bx, torch.exp(y, out=ey))
                    torch.exp(x, out=ex)
                    y.add_(ay).addcmul_(by, ex)
            path[year, 0], path[year, 1] = x, y
        return path, exponential

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, pull: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        theta, exponential = ctx.saved_tensors
        beta, delta = theta[1] / STEPS, theta[3] / STEPS
        part = theta.new_tensor([A, (*B, 0.0)]).T[:, :, None] / STEPS
        through = exponential * torch.stack([part[:, 1] * delta * STEPS, -part[:, 0] * beta * STEPS], 1)
        onto = torch.empty_like(exponential)
        x, y = torch.zeros_like(beta), torch.zeros_like(beta)
        for year in reversed(range(len(pull))):
            x, y = x + pull[year, 0], y + pull[year, 1]
            for step in reversed(range(STEPS)):
                for (tx, ty), (ox, oy) in zip(reversed_(through[year, step]), reversed_(onto[year, step]), strict=True):
                    oy.copy_(y)
                    x.addcmul_(tx, y)
                    ox.copy_(x)
                    y.addcmul_(ty, x)
        onto = onto * part
        along = onto * exponential.flip(3)
        both, each = onto.sum((0, 1, 2)), along.sum((0, 1, 2))
        return torch.stack([both[0], -each[0], -both[1], each[1]]), torch.stack([x, y]), None


def reversed_(parts: Tensor) -> Iterator[Tensor]:
    return reversed(parts.unbind(0))


def posterior() -> Posterior:
    """Birth and death rates theta, populations z_init at time 0, and the sizes sigma of lognormal errors.

    Stan's normal laws of positive theta are truncated at zero; tempering starts from half-normal laws instead of them.
    """
    d = data.posteriordb("hudson_lynx_hare")
    table = real(d["y"]).log()[:, :, None]
    table = torch.cat([real(d["y_init"]).log()[None, :, None], table])  # (21, 2, 1)
    years = len(d["ts"])
    centre, scale = real([1.0, 0.05, 1.0, 0.05]), real([0.5, 0.05, 0.5, 0.05])
    start = HalfNormal(2 * scale, validate_args=False)
    prior = {
        "theta": start,
        "z_init": LogNormal(real(math.log(10.0)).expand(2), real(1.0)),
        "sigma": LogNormal(real(-1.0).expand(2), real(1.0)),
    }

    def log_likelihood(p: Named):
        origin = p["z_init"].log().T
        path = torch.cat([origin[None], Solution.apply(p["theta"].T, origin, years)[0]])
        fit = ((table - path) / p["sigma"].T).square().sum((0, 1))
        law = without(start, p["theta"]) - 0.5 * ((p["theta"] - centre) / scale).square().sum(1)
        value = law - 0.5 * fit - len(table) * p["sigma"].log().sum(1)
        return torch.where(value.isfinite(), value, -math.inf)  # where the populations explode

    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {k: v for name in ("theta", "z_init", "sigma") for k, v in numbered(name, p[name]).items()},
        lambda r: {name: gathered(name, r) for name in ("theta", "z_init", "sigma")},
    )
