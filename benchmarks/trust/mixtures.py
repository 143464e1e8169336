"""Mixtures of normals in d dimensions, what tilting and measuring makes of them, and the diffusion samplers for them.

All is in closed form: the tilt by exp(b . x) and the posterior behind a linear measurement are mixtures again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from benchmarks.trust.target import Job, Sampler, Truth
from torch import Tensor
from torch.distributions import MultivariateNormal

from motes.core import FeynmanKac
from motes.diffusion import EDM, Denoiser, Process, RectifiedFlow, VarianceExploding, VariancePreserving, mixture

F64 = torch.float64
FUNCTIONS = {"x": lambda x: x[:, 0], "x^2": lambda x: x[:, 0].square()}
"""Of the first coordinate of images (N, d)."""
SETTINGS: Mapping[str, tuple[Process, int]] = {
    "VP, 50 steps": (VariancePreserving(), 50),
    "VE, 50 steps": (VarianceExploding(), 50),
    "EDM, 50 steps": (EDM(), 50),
    "flow, 50 steps": (RectifiedFlow(), 50),
    "VP, 200 steps": (VariancePreserving(), 200),
    "VP, 20 steps": (VariancePreserving(), 20),
    "VP, 10 steps": (VariancePreserving(), 10),
}


@dataclass(frozen=True)
class Mixture:
    """sum_m exp(log_weight_m) N(means_m, covariances_m): (M,), (M, d), (M, d, d) float64, not normalised."""

    log_weight: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def of(cls, d: int, seed: int = 0) -> Mixture:
        """Three normals with centres of size 1.2 and variances around 0.4, as numbers of torch's own generator give."""
        numbers = torch.Generator().manual_seed(seed + 100 * d)
        means = 1.2 * torch.randn(3, d, generator=numbers, dtype=F64)
        roots = torch.randn(3, d, d, generator=numbers, dtype=F64) / math.sqrt(d)
        weights = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
        return cls(weights.log(), means, 0.3 * roots @ roots.mT + 0.1 * torch.eye(d, dtype=F64))

    def tilted(self, slope: Tensor) -> Mixture:
        """Times exp(slope . x)."""
        shift = self.covariances @ slope
        gain = self.means @ slope + 0.5 * shift @ slope
        return Mixture(self.log_weight + gain, self.means + shift, self.covariances)

    def measured(self, matrix: Tensor, y: Tensor, noise: float | Tensor) -> Mixture:
        """Times N(y; matrix x, noise^2 I), or N(y; matrix x, noise) where the noise is a covariance."""
        covariance = noise if isinstance(noise, Tensor) else noise**2 * torch.eye(len(y), dtype=F64)
        whole = matrix @ self.covariances @ matrix.T + covariance
        gain = self.covariances @ matrix.T @ torch.linalg.inv(whole)
        predicted = self.means @ matrix.T
        return Mixture(
            self.log_weight + MultivariateNormal(predicted, whole).log_prob(y),
            self.means + torch.einsum("mdk,mk->md", gain, y - predicted),
            self.covariances - gain @ matrix @ self.covariances,
        )

    @property
    def largest_std(self) -> float:
        """The largest standard deviation along any direction, which is the `scale` of an observation."""
        share = torch.softmax(self.log_weight, 0)
        gap = self.means - share @ self.means
        covariance = torch.einsum("m,mij->ij", share, self.covariances + gap[:, :, None] * gap[:, None, :])
        return float(torch.linalg.eigvalsh(covariance)[-1]) ** 0.5

    def truth(self) -> Truth:
        """The log normaliser, and the means of `FUNCTIONS`."""
        share, first = torch.softmax(self.log_weight, 0), self.means[:, 0]
        square = first.square() + self.covariances[:, 0, 0]
        means = {"x": float(share @ first), "x^2": float(share @ square)}
        return Truth(float(self.log_weight.logsumexp(0)), means)

    def denoiser(self, process: Process) -> Denoiser:
        """The exact one."""
        return mixture(process, self.log_weight.exp(), self.means, self.covariances)


def by_setting(make: Callable[[Process, int], FeynmanKac], without: tuple[str, ...] = ()) -> Mapping[str, Sampler]:
    """A sampler for each of `SETTINGS`, from a function of a process and a number of steps to a model."""

    def sampler(process: Process, steps: int) -> Sampler:
        evaluations = steps + 1 + (steps // 3 + 1) / 4  # with the coarse paths of every fourth particle
        return lambda n, seed: Job(make(process, steps), n, evaluations=lambda run: run.n * evaluations)

    return {name: sampler(*setting) for name, setting in SETTINGS.items() if name not in without}
