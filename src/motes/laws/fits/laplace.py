"""Laplace's approximation: a Gaussian, or a Student, at each mode."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.laws.fits.lbfgs import climb, starts
from motes.laws.fits.proposal import Mixture
from motes.laws.law import Law
from motes.rng import Rng


@dataclass(frozen=True)
class Laplace:
    """Laplace's approximation of a law in unconstrained parameters, found by climbing from several draws of the prior.

    At a mode m with H minus the Hessian of log p, exp(log p(m)) sqrt((2 pi)^d / det H) is the mode's mass, and
    N(m, H^-1) its shape: exact for a Gaussian posterior, else off by an unknown amount. Different modes make a mixture,
    weighed by their masses; paths that ended elsewhere than in a maximum are left out.

    References:
        Tierney & Kadane (1986), Accurate approximations for posterior moments and marginal densities, JASA 81.

    Args:
        starts: draws of the prior to climb from.
        freedom: degrees of freedom of Student components, whose heavy tails make a safe start; infinity is Gaussian.
        inflate: factor of the standard deviations.
        steps: the most steps of a climb.

    Raises:
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.laws.fits.laplace import Laplace
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal)
    >>> mixture, log_evidence = Laplace().fit(density, motes.Rng(0))
    >>> [round(v, 4) for v in mixture.location[0].tolist()], round(log_evidence, 4)
    ([1.8349, 1.8349], -6.1638)
    """

    starts: int = 8
    _: KW_ONLY
    freedom: float = math.inf
    inflate: float = 1.0
    steps: int = 500

    references: ClassVar[tuple[Reference, ...]] = (cited("tierney1986", "Laplace's approximation"),)

    def __post_init__(self) -> None:
        if min(self.starts, self.steps) < 1 or not (self.freedom > 0 and self.inflate > 0):
            raise MotesError(f"starts and steps must be at least 1, freedom and inflate positive, not {self}")

    def fit(self, density: Law, rng: Rng) -> tuple[Mixture, float]:
        """The mixture, for `motes.laws.approximation.From`, and Laplace's estimate of the log evidence, nats.

        Raises:
            MotesError: the law has no gradients or second derivatives, or no climb has ended in a maximum.
        """
        (end,) = deque(climb(density, starts(density, rng.at("laplace"), self.starts), self.steps, 10), maxlen=1)
        found: list[tuple[Tensor, Tensor, float]] = []
        for i in end.value.argsort(descending=True).tolist():
            mode, value = end.z[i], float(end.value[i])
            factor = _root(density, mode)
            if factor is None:
                continue
            slope = factor.mT @ end.gradient[i].double()  # in standard deviations; a mode has none
            if float(slope.norm()) > 1e-2 or any(_same(mode.double(), m, f) for m, f, _ in found):
                continue
            mass = value + factor.diagonal().log().sum() + 0.5 * density.dim * math.log(2 * math.pi)
            found.append((mode.double(), factor, float(mass)))
        if not found:
            raise MotesError(
                f"none of {self.starts} climbs ended in a maximum after at most {self.steps} steps: the density may "
                "be unbounded or flat; use more steps or starts, a proper prior, or Pathfinder"
            )
        mass = torch.tensor([m for *_, m in found], dtype=torch.float64)
        location, factor = torch.stack([m for m, _, _ in found]), torch.stack([f for _, f, _ in found])
        mixture = Mixture(torch.softmax(mass, 0), location, self.inflate * factor, freedom=self.freedom)
        return mixture, float(mass.logsumexp(0))


def _root(density: Law, mode: Tensor) -> Tensor | None:
    """(d, d) lower triangular S with S S^T the inverse of minus the Hessian; None where that is not positive."""
    d = density.dim
    eye = torch.eye(d, dtype=mode.dtype)
    prior, likelihood = density.hessian_vector(mode.expand(d, d), eye)
    hessian = -(prior + likelihood).double()
    factor, failed = torch.linalg.cholesky_ex(0.5 * (hessian + hessian.mT))
    if failed:
        return None
    covariance = torch.cholesky_inverse(factor)
    return torch.linalg.cholesky(0.5 * (covariance + covariance.mT))


def _same(a: Tensor, b: Tensor, factor: Tensor) -> bool:
    """Whether two modes are within a tenth of a standard deviation."""
    return float(torch.linalg.solve_triangular(factor, (a - b)[:, None], upper=False).norm()) < 0.1
