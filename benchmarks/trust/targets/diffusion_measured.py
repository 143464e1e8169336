"""A diffusion model of a mixture of normals behind a linear measurement with noise .3 of half as many numbers.

log p(y) and the posterior are in closed form, in 1, 4 and 16 dimensions.
"""

from __future__ import annotations

import torch
from benchmarks.trust.mixtures import F64, FUNCTIONS, Mixture, by_setting
from benchmarks.trust.target import Target

import motes
from motes.diffusion import Process
from motes.diffusion.inverse import Matrix, Observation, posterior

NOISE = 0.3


def target(d: int) -> Target:
    law, numbers = Mixture.of(d), torch.Generator().manual_seed(7 * d)
    count = max(1, d // 2)
    matrix = torch.randn(count, d, generator=numbers, dtype=F64) / d**0.5
    y = matrix @ law.means[1] + NOISE * torch.randn(count, generator=numbers, dtype=F64)
    observation = Observation(Matrix(matrix.float(), (d,)), y.float(), NOISE, scale=law.largest_std)

    def model(process: Process, steps: int) -> motes.ReverseDiffusion:
        return posterior(law.denoiser(process), steps, observation, shape=(d,))

    return Target(
        f"diffusion-measured-{d}",
        f"Diffusion of a mixture in {d} d, measured",
        law.measured(matrix.float().double(), y.float().double(), NOISE).truth,
        FUNCTIONS,
        by_setting(model),
        domain="diffusion",
        sizes=(512,),
    )


TARGETS = [target(d) for d in (1, 4, 16)]
