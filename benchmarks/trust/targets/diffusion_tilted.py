"""A diffusion model of a mixture of normals, tilted by exp(b . x), in 1, 4 and 16 dimensions: a mixture again."""

from __future__ import annotations

import torch
from benchmarks.trust.mixtures import FUNCTIONS, Mixture, by_setting
from benchmarks.trust.target import Target

import motes
from motes.diffusion import Process

SLOPE = 1.5


def target(d: int) -> Target:
    law, slope = Mixture.of(d), torch.full((d,), SLOPE / d**0.5, dtype=torch.float64)

    def model(process: Process, steps: int) -> motes.ReverseDiffusion:
        return motes.ReverseDiffusion(
            law.denoiser(process), steps, reward=lambda x: x.double() @ slope, guidance="reward", shape=(d,)
        )

    return Target(
        f"diffusion-tilted-{d}",
        f"Diffusion of a mixture in {d} d, tilted",
        law.tilted(slope).truth,
        FUNCTIONS,
        by_setting(model),
        domain="diffusion",
        sizes=(512,),
    )


TARGETS = [target(d) for d in (1, 4, 16)]
