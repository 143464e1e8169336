"""The optimal transport from noise to a normal law as a flow model, tilted by exp(b . x): data and noise are paired."""

from __future__ import annotations

import torch
from benchmarks.trust.mixtures import FUNCTIONS, Mixture
from benchmarks.trust.target import Job, Sampler, Target
from torch import Tensor

import motes
from motes.diffusion import Denoiser, RectifiedFlow, TiltedFlow

PROCESS = RectifiedFlow()
SLOPE = 1.5


def transport(law: Mixture) -> Denoiser:
    """x_t = (1 - t) (m + L z) + t z with L the symmetric root of the covariance: straight lines of the optimal map."""
    mean, (values, axes) = law.means[0], torch.linalg.eigh(law.covariances[0])
    root = values.sqrt()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        s = t.double()[:, None]
        z = ((x.double() - (1 - s) * mean) @ axes) / ((1 - s) * root + s)
        return ((z * (1 - root)) @ axes.T - mean).to(x)

    return Denoiser(velocity, PROCESS, predicts="flow", name="optimal transport")


def target(d: int) -> Target:
    whole, slope = Mixture.of(d), torch.full((d,), SLOPE / d**0.5, dtype=torch.float64)
    law = Mixture(torch.zeros(1, dtype=torch.float64), whole.means[:1], whole.covariances[:1])
    flow = transport(law)

    def reward(x: Tensor) -> Tensor:
        return x.double() @ slope

    def tilted(steps: int) -> Sampler:
        def job(n: int, seed: int) -> Job:
            return Job(TiltedFlow(flow, steps, reward=reward, shape=(d,)), n)

        return job

    def noisy(n: int, seed: int) -> Job:
        return Job(motes.ReverseDiffusion(flow, 50, reward=reward, guidance="reward", shape=(d,)), n)

    return Target(
        f"diffusion-transport-{d}",
        f"Optimal-transport flow in {d} d, tilted",
        law.tilted(slope).truth,
        FUNCTIONS,
        {"tilted noise, 8 steps": tilted(8), "tilted noise, 16 steps": tilted(16), "steps with noise": noisy},
        domain="diffusion",
        sizes=(512,),
    )


TARGETS = [target(d) for d in (1, 4)]
