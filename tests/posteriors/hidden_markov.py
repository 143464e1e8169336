"""posteriordb's hmm_drive_0 on bball_drive_event_0: a two-state hidden Markov model of a basketball player, d = 6."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Dirichlet, HalfNormal

from . import data
from .base import Named, Posterior, gathered, numbered, real, without

NAME = "bball_drive_event_0-hmm_drive_0"
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def product(m: Tensor) -> tuple[Tensor, Tensor]:
    """The product (2, 2, N) over t of matrices m (2, 2, T, N), and the log (N,) of what it was divided by.

    Neighbours are multiplied until one is left, so that there are as many operations as log2 T.
    """
    log_scale = torch.zeros_like(m[0, 0, 0])
    while m.shape[2] > 1:
        if m.shape[2] % 2:
            one = torch.eye(2, dtype=m.dtype)[:, :, None, None].expand(2, 2, 1, m.shape[3])
            m = torch.cat([m, one], 2)
        a, b = m[:, :, 0::2], m[:, :, 1::2]
        m = torch.addcmul(a[:, :1] * b[:1], a[:, 1:], b[1:])
        scale = m.detach().amax((0, 1))
        m, log_scale = m / scale, log_scale + scale.log().sum(0)
    return m[:, :, 0], log_scale


def posterior() -> Posterior:
    """Exponential emissions with rates phi and lambda, each ordered: its second element is the first plus a step."""
    d = data.posteriordb("bball_drive_event_0")
    u, v, alpha = real(d["u"])[:, None], real(d["v"])[:, None], real(d["alpha"])
    step = HalfNormal(real(3.0), validate_args=False)
    prior = {
        "theta1": Dirichlet(alpha[0]),
        "theta2": Dirichlet(alpha[1]),
        "phi": HalfNormal(real(1.0)),
        "phi_step": step,
        "lambda": HalfNormal(real(1.0)),
        "lambda_step": step,
    }

    def log_likelihood(p: Named):
        phi, rate = (torch.stack([p[k], p[k] + p[f"{k}_step"]])[:, None] for k in ("phi", "lambda"))
        emission = (phi * rate).log() - phi * u - rate * v  # (2, T, N)
        most = emission.detach().amax(0)
        emission = (emission - most).exp()
        theta = torch.stack([p["theta1"].T, p["theta2"].T])[:, :, None]  # from, to, 1, N
        # every state may be the first one, with weight 1
        first = torch.stack([emission[:, :1], torch.zeros_like(emission[:, :1])])
        total, log_scale = product(torch.cat([first, theta * emission[:, 1:]], 2))
        law = without(step, p["phi_step"]) + without(step, p["lambda_step"])
        law = law - 0.5 * ((phi[1, 0] - 3).square() + (rate[1, 0] - 3).square())
        return law + total[0].sum(0).log() + log_scale + most.sum(0)

    return Posterior(
        NAME,
        log_likelihood,
        prior,
        lambda p: {
            **numbered("theta1", p["theta1"]),
            **numbered("theta2", p["theta2"]),
            **numbered("phi", torch.stack([p["phi"], p["phi"] + p["phi_step"]], 1)),
            **numbered("lambda", torch.stack([p["lambda"], p["lambda"] + p["lambda_step"]], 1)),
        },
        lambda r: {
            "theta1": gathered("theta1", r),
            "theta2": gathered("theta2", r),
            "phi": r["phi[1]"],
            "phi_step": r["phi[2]"] - r["phi[1]"],
            "lambda": r["lambda[1]"],
            "lambda_step": r["lambda[2]"] - r["lambda[1]"],
        },
    )
