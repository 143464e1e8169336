"""What the tests of reverse diffusion compare with: linear normal chains in closed form, and noise by quadrature."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from motes.diffusion import ReverseDiffusion

F64 = torch.float64


@dataclass(frozen=True)
class Normal:
    """N(mean (d,), covariance (d, d))."""

    mean: Tensor
    covariance: Tensor

    def tilted(self, centre: Tensor, precision: Tensor) -> tuple[float, Normal]:
        """The log normaliser and the law after a tilt by exp(-(x - centre)' precision (x - centre) / 2)."""
        eye, gap = torch.eye(len(self.mean), dtype=F64), self.mean - centre
        inner = torch.linalg.inv(eye + precision @ self.covariance) @ precision
        log_z = -0.5 * torch.logdet(eye + self.covariance @ precision) - 0.5 * gap @ inner @ gap
        covariance = torch.linalg.inv(torch.linalg.inv(self.covariance) + precision)
        mean = covariance @ (torch.linalg.solve(self.covariance, self.mean) + precision @ centre)
        return float(log_z), Normal(mean, covariance)


def chain(process, times: Tensor, data: Normal, integrator: str, final: str) -> Normal:
    """The law of the image at the end of the discretised chain, by a recursion of its own.

    Euler's step from the score of normal data, the ancestral step from Bayes' rule in its precision form. "multistep"
    is the ancestral step from a state moved by what the prediction has changed: a recursion for state and prediction.
    """
    if integrator == "multistep":
        return multistep(process, times, data, final)
    eye = torch.eye(len(data.mean), dtype=F64)
    law = Normal(torch.zeros_like(data.mean), process.start_std**2 * eye)

    def affine(law: Normal, a: Tensor, b: Tensor, variance: float = 0.0) -> Normal:
        return Normal(a @ law.mean + b, a @ law.covariance @ a.T + variance * eye)

    def denoiser(t: float) -> tuple[Tensor, Tensor]:
        """The posterior mean as (matrix, offset): regression of x_0 on x_t."""
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        gain = alpha * data.covariance @ torch.linalg.inv(alpha**2 * data.covariance + sigma**2 * eye)
        return gain, data.mean - alpha * gain @ data.mean

    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        if integrator == "euler-maruyama":
            f, g2 = float(process.drift(t)), float(process.diffusion(t)) ** 2
            inverse = torch.linalg.inv(alpha**2 * data.covariance + sigma**2 * eye)
            a = eye + (t - s) * (-f * eye - g2 * inverse)
            law = affine(law, a, (t - s) * g2 * alpha * inverse @ data.mean, (t - s) * g2)
        else:
            alpha_s, sigma_s = float(process.alpha(s)), float(process.sigma(s))
            shrink = alpha / alpha_s
            added = sigma**2 - shrink**2 * sigma_s**2
            variance = 1 / (1 / sigma_s**2 + shrink**2 / added)
            gain, offset = denoiser(t)
            pull = variance * alpha_s / sigma_s**2
            law = affine(law, pull * gain + variance * shrink / added * eye, pull * offset, variance)
    return affine(law, *denoiser(float(times[-1]))) if final == "denoised" else law


def multistep(process, times: Tensor, data: Normal, final: str) -> Normal:
    """The law at the end of the chain of second order, jointly with the prediction of the step before."""
    d = len(data.mean)
    eye, zero = torch.eye(d, dtype=F64), torch.zeros(d, d, dtype=F64)
    mean = torch.zeros(2 * d, dtype=F64)
    covariance = torch.block_diag(process.start_std**2 * eye, zero)
    alphas, sigmas = process.alpha(times).tolist(), process.sigma(times).tolist()
    for k, (alpha, sigma) in enumerate(zip(alphas, sigmas, strict=True)):
        gain = alpha * data.covariance @ torch.linalg.inv(alpha**2 * data.covariance + sigma**2 * eye)
        offset = data.mean - alpha * gain @ data.mean
        if k == len(alphas) - 1:
            break
        kappa = min(sigmas[k - 1] / alphas[k - 1] / (sigma / alpha) - 1, 1.0) if k else 0.0
        alpha_s, sigma_s = alphas[k + 1], sigmas[k + 1]
        shrink = alpha / alpha_s
        variance = 1 / (1 / sigma_s**2 + shrink**2 / (sigma**2 - shrink**2 * sigma_s**2))
        keep, pull = variance * shrink / (sigma**2 - shrink**2 * sigma_s**2), variance * alpha_s / sigma_s**2
        moved = keep * (eye + kappa * alpha * gain) + pull * gain
        step = torch.cat([torch.cat([moved, -keep * kappa * alpha * eye], 1), torch.cat([gain, zero], 1)])
        mean = step @ mean + torch.cat([(keep * kappa * alpha + pull) * offset, offset])
        covariance = step @ covariance @ step.T + torch.block_diag(variance * eye, zero)
    law = Normal(mean[:d], covariance[:d, :d])
    return Normal(gain @ law.mean + offset, gain @ law.covariance @ gain.T) if final == "denoised" else law


@dataclass(frozen=True)
class Nodes:
    """Stands in for an Rng: its normals are the points of a Gauss-Hermite grid, one dimension a draw.

    Particle i is grid point i; `weight` (N,) are the grid's probabilities. One-dimensional states only.
    """

    points: Tensor  # (N, 1 + steps)
    weight: Tensor
    purpose: str = ""
    step: int = 0

    @classmethod
    def grid(cls, steps: int, order: int) -> Nodes:
        x, w = np.polynomial.hermite_e.hermegauss(order)
        mesh = torch.cartesian_prod(*[torch.tensor(x)] * (steps + 1))
        weight = torch.cartesian_prod(*[torch.tensor(w / w.sum())] * (steps + 1)).prod(1)
        return cls(mesh, weight)

    def at(self, purpose: str, *, step: int | None = None, inner: int | None = None) -> Nodes:
        return replace(self, purpose=purpose, step=self.step if step is None else step)

    def normal(self, shape, dtype=F64) -> Tensor:
        assert tuple(shape) == (len(self.points), 1) and self.purpose in ("start", "noise")
        return self.points[:, self.step : self.step + 1].to(dtype)


def expected_weight(model: ReverseDiffusion, order: int, f=None) -> float:
    """E[exp(log_weight) f(image)] for one particle that is never resampled, by quadrature over all its noise."""
    nodes, model = Nodes.grid(model.table.steps, order), replace(model, coarse=0)
    particles = model.init(nodes.at("init", step=0), len(nodes.weight))  # type: ignore[arg-type]
    while not model.done(particles):
        particles = model.step(nodes.at("step", step=particles.t + 1), particles)  # type: ignore[arg-type]
    value = torch.exp(particles.log_weight)
    return float(nodes.weight @ (value if f is None else value * f(model.view(particles))))
