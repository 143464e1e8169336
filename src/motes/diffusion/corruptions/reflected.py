"""Reflected diffusion on a box and on the simplex: where the noise lives, its kernel, and exact scores of data sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from motes.errors import MotesError, ShapeError, check_name
from motes.rng import Rng

DOMAINS = ("box", "simplex")
LARGEST = 7
"""Numbers a point of the simplex may have for kernels, which sum over all orders of the others."""


@dataclass(frozen=True)
class Reflected:
    """Brownian motion that is reflected at the walls, which forgets where it began and ends uniform.

    On the box [low, high]^d noise of standard deviation sigma is added and the place folded back, which is the law of
    the reflected motion at time sigma^2 exactly; the kernel of a coordinate is a normal law with all its mirror images,

        k(x | y) = sum_j N(x; y + 2 j w, sigma^2) + N(x; 2 low - y + 2 j w, sigma^2),        w = high - low.

    Points of the simplex with K numbers are seen through their running sums u_1 <= ... <= u_{K-1} in [0, 1], a linear
    map; the motion there is that of the box, sorted, which is reflection at u_i = u_{i+1} (the wall where a number is
    zero), and its kernel sums over all orders. It is one of the reflected motions of the simplex: that of the metric in
    which the running sums are Cartesian.

    Scores are taken in `coordinates`: the point itself in a box, the running sums on the simplex.

    Args:
        domain: "box" or "simplex".
        low, high: the walls of a box; a simplex has 0 and 1.
        sigma_min, sigma_max: the noise levels of a sampler; at sigma_max = 1.5 (high - low) the slowest mode has lost
            all but exp(-11) of itself.

    References:
        Lou & Ermon (2023), Reflected Diffusion Models, ICML, sections 3-4 (the box; other maps to the simplex).

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> x = Reflected("simplex").noised(Rng(0), torch.tensor([[0.2, 0.3, 0.5]]), 0.1)
        >>> bool((x >= 0).all()), round(float(x.sum()), 5)
        (True, 1.0)
    """

    domain: Literal["box", "simplex"] = "box"
    _: KW_ONLY
    low: float = 0.0
    high: float = 1.0
    sigma_min: float = 0.01
    sigma_max: float = 1.5

    def __post_init__(self) -> None:
        check_name("domain", self.domain, DOMAINS)
        if not self.low < self.high or (self.domain == "simplex" and (self.low, self.high) != (0, 1)):
            raise MotesError(f"need low < high, and 0 and 1 on the simplex, not {self.low}, {self.high}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise MotesError(f"need 0 < sigma_min < sigma_max, not {self.sigma_min}, {self.sigma_max}")

    def sigmas(self, steps: int) -> Tensor:
        """(steps + 1,) falling noise levels in proportion."""
        if steps < 1:
            raise MotesError(f"a sampler needs at least 1 step, not {steps}")
        ends = math.log(self.sigma_max), math.log(self.sigma_min)
        return torch.linspace(*ends, steps + 1, dtype=torch.float64).exp()

    def coordinates(self, x: Tensor) -> Tensor:
        """Points (n, d) as what the motion moves: themselves, or running sums (n, K - 1).

        Raises:
            ShapeError: points outside.
        """
        if self.domain == "simplex":
            total = x.sum(1)
            if x.ndim != 2 or x.shape[1] < 2 or bool((x < -1e-6).any()) or bool((total - 1).abs().max() > 1e-4):
                raise ShapeError("points of the simplex are (n, K >= 2), not negative, and add to one")
            x = x.cumsum(1)[:, :-1]
        elif bool((x < self.low - 1e-6).any()) or bool((x > self.high + 1e-6).any()):
            raise ShapeError(f"points must lie in [{self.low}, {self.high}]; scale them first")
        return x

    def points(self, u: Tensor) -> Tensor:
        """The points (n, d) of coordinates."""
        if self.domain == "box":
            return u
        zero, one = torch.zeros_like(u[:, :1]), torch.ones_like(u[:, :1])
        return torch.cat([zero, u, one], 1).diff(dim=1)

    def fold(self, u: Tensor) -> Tensor:
        """Coordinates from anywhere, reflected until they are inside."""
        width = self.high - self.low
        u = torch.remainder(u - self.low, 2 * width)
        u = self.low + torch.minimum(u, 2 * width - u)
        return torch.sort(u, dim=1).values if self.domain == "simplex" else u

    def uniform(self, rng: Rng, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Coordinates (n, ...) of the law that the motion ends in."""
        return self.fold(self.low + (self.high - self.low) * rng.uniform(shape, dtype=dtype))

    def noised(self, rng: Rng, x: Tensor, sigma: float) -> Tensor:
        """Points (n, d) after reflected noise of level sigma."""
        noise = rng.normal(tuple(self.coordinates(x).shape), dtype=x.dtype).to(x.device)
        return self.points(self.fold(self.coordinates(x) + sigma * noise))

    def kernel(self, u: Tensor, v: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The log-density of each coordinate u given v in the box, and its derivative in u; they broadcast."""
        width, log_k, slope = self.high - self.low, [], []
        reach = math.ceil(4.5 * sigma / width) + 1  # images further off have densities below exp(-40)
        for j in range(-reach, reach + 1):
            for image in (v + 2 * j * width, 2 * self.low - v + 2 * j * width):
                z = (u - image) / sigma
                log_k.append(-0.5 * z * z)
                slope.append(-z / sigma)
        log_each = torch.stack(log_k)
        log_sum = torch.logsumexp(log_each, 0)
        derivative = (torch.exp(log_each - log_sum) * torch.stack(slope)).sum(0)
        return log_sum - math.log(sigma * math.sqrt(2 * math.pi)), derivative

    def empirical(self, samples: Tensor) -> Callable[[Tensor, float], Tensor]:
        """The exact score of noised data, (coordinates (n, d), sigma) to (n, d), for a data set (M, d).

        Raises:
            ShapeError: more numbers a point of the simplex than orders can be summed over.
        """
        data = self.coordinates(samples).double()
        if self.domain == "simplex":
            d = data.shape[1]
            if d >= LARGEST:
                raise ShapeError(f"kernels on the simplex are for at most {LARGEST} numbers a point, not {d + 1}")
            data = torch.cat([data[:, list(order)] for order in itertools.permutations(range(d))])

        def score(u: Tensor, sigma: float) -> Tensor:
            log_k, slope = self.kernel(u.double()[:, None], data.to(u.device), sigma)  # (n, M, d)
            weight = torch.softmax(log_k.sum(2), 1)
            return torch.einsum("nm,nmd->nd", weight, slope).to(u)

        return score
