"""Poisson flows (PFGM++): noise with heavy tails from D extra dimensions, and the same deterministic sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.initial_law import InitialLaw
from motes.diffusion.processes.process import Process
from motes.errors import MotesError, ShapeError
from motes.rng import Rng


def poisson_noised(rng: Rng, x: Tensor, sigma: float, extra: int) -> Tensor:
    """Images (n, *shape) moved by noise of density proportional to (|x - y|^2 + r^2)^(-(N + D) / 2), r = sigma sqrt(D).

    A uniform direction and the radius R = r sqrt(B / (1 - B)), B from Beta(N / 2, D / 2): a multivariate t law with D
    degrees of freedom and scale sigma, whose squared length has the mean sigma^2 D N / (D - 2) for D > 2. For D to
    infinity it is normal noise.

    Args:
        rng: the address of the noise.
        x: (n, *shape) images of N numbers.
        sigma: the noise level.
        extra: D, the number of extra dimensions, at least 1.

    References:
        Xu, Liu, Tian, Tong, Tegmark & Jaakkola (2023), PFGM++: Unlocking the Potential of Physics-Inspired Generative
        Models, ICML, section 3.2 and appendix B.
    """
    if extra < 1:
        raise MotesError(f"there must be at least 1 extra dimension, not {extra}")
    flat = x.flatten(1)
    direction = rng.at("direction").normal(tuple(flat.shape))
    direction = direction / direction.norm(dim=1, keepdim=True)
    share = rng.at("radius").beta((len(flat), 1), torch.tensor(0.5 * flat.shape[1]), torch.tensor(0.5 * extra))
    radius = sigma * math.sqrt(extra) * torch.sqrt(share / (1 - share))
    return x + (radius * direction).to(x).reshape(x.shape)


@dataclass(frozen=True)
class PoissonStart(InitialLaw):
    """The law that a Poisson flow starts from: its noise at the largest level, about the origin.

    Give it as `start` to `Guided` with noise = 0, with a denoiser that was trained on `poisson_noised` images: the flow
    dx / dsigma = (x - D(x)) / sigma is that of the normal case, only the prediction and the start differ. Exact up to
    the step size and to what of the data is left at sigma_max; steps with noise would not keep these marginals.

    Args:
        process: with alpha = 1, such as `VarianceExploding` or `EDM`; it says what the noise levels are.
        extra: D, the number of extra dimensions, as for the denoiser.

    References:
        Xu et al. (2023), PFGM++, ICML, Algorithm 2.
    """

    process: Process
    extra: int

    def __post_init__(self) -> None:
        if self.extra < 1:
            raise MotesError(f"there must be at least 1 extra dimension, not {self.extra}")

    def __call__(self, rng: Rng, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return poisson_noised(rng, torch.zeros(shape, dtype=dtype), self.process.start_std, self.extra)


def poisson_empirical(process: Process, samples: Tensor, extra: int) -> Denoiser:
    """The exact denoiser of a data set under Poisson noise: each example by its kernel.

    D(x) = sum_i w_i y_i with w_i proportional to (|x - y_i|^2 + r^2)^(-(N + D) / 2).

    Args:
        process: with alpha = 1, such as `VarianceExploding` or `EDM`.
        samples: (M, *shape), the data.
        extra: D, the number of extra dimensions.

    Raises:
        ShapeError: the process shrinks the data.
    """
    if abs(float(process.alpha(process.t_max)) - 1) > 1e-12:
        raise ShapeError(f"Poisson flows add noise to data that stays as it is (alpha = 1); {process} shrinks it")
    data = samples.flatten(1).double()
    power = 0.5 * (data.shape[1] + extra)

    def mean(x: Tensor, sigma: Tensor) -> Tensor:
        flat = x.flatten(1).double()
        square = torch.cdist(flat, data.to(flat.device), compute_mode="donot_use_mm_for_euclid_dist").square()
        log_weight = -power * torch.log(square + extra * sigma.double()[:, None] ** 2)
        return (torch.softmax(log_weight, 1) @ data.to(flat.device)).to(x).reshape(x.shape)

    name = f"{len(data)} examples under Poisson noise with {extra} extra dimensions"
    return Denoiser(mean, process, predicts="data", condition="sigma", name=name)
