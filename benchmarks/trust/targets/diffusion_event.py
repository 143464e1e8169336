"""P(x > a) of a diffusion model of N(0, 1), a = 1, 2, 3 and 4, and the first two moments given that.

log P by the normal distribution function; E[x | x > a] = h and E[x^2 | x > a] = 1 + a h, with h = phi(a) / P.
"""

from __future__ import annotations

import math

import torch
from benchmarks.trust.mixtures import FUNCTIONS, Mixture, by_setting
from benchmarks.trust.target import Target, Truth
from scipy.stats import norm

import motes
from motes.diffusion import Process
from motes.diffusion.guidance import Event

NORMAL = Mixture(*(torch.tensor(v, dtype=torch.float64) for v in ([0.0], [[0.0]], [[[1.0]]])))


def target(level: float) -> Target:
    def truth() -> Truth:
        hazard = math.exp(norm.logpdf(level) - norm.logsf(level))
        return Truth(float(norm.logsf(level)), {"x": hazard, "x^2": 1 + level * hazard})

    def model(process: Process, steps: int) -> motes.ReverseDiffusion:
        event = Event(lambda x: x[:, 0] - level)
        return motes.ReverseDiffusion(
            NORMAL.denoiser(process), steps, reward=event.reward, guidance="reward", shape=(1,), twist=event
        )

    return Target(
        f"diffusion-event-{level:g}",
        f"P(x > {level:g}) of a diffusion model",
        truth,
        FUNCTIONS,
        by_setting(model),
        domain="diffusion",
        sizes=(512,),
    )


TARGETS = [target(level) for level in (1.0, 2.0, 3.0, 4.0)]
