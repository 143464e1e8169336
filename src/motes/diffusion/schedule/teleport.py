"""The first steps of a sampler in one jump, by the exact flow of the normal law with the data's mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.initial_law import InitialLaw
from motes.diffusion.processes.process import Process
from motes.errors import MotesError, ShapeError
from motes.rng import Rng


@dataclass(frozen=True, eq=False)
class Teleport(InitialLaw):
    """A sampler's state at a late time t, straight from the noise at t_max.

    As long as noise drowns the data's structure, the score is that of the normal law with the data's mean and
    covariance, whose flow is known: with y = x / alpha, clock = sigma / alpha and the eigenpairs (l_k, u_k) of the
    covariance,

        y_t = m + sum_k sqrt((clock_t^2 + l_k) / (clock_T^2 + l_k)) u_k u_k' (y_T - m).

    Exact for normal data; otherwise biased by what `distance` measures. In a weighted sampler the reference is the
    chain that starts here.

    Args:
        process: the noising process.
        mean: (*shape), of the data.
        covariance: (d, d) for d numbers an image, positive semidefinite.
        t: where to land; give the sampler `times(steps)`.

    Raises:
        ShapeError: mean and covariance do not fit.
        ValueError: t is outside of the process.

    References:
        Wang & Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and
        its Applications, TMLR, section 5.

    Example:
        >>> import torch, motes
        >>> from motes.diffusion import Guided, VarianceExploding, gaussian
        >>> process = VarianceExploding(sigma_min=0.01, sigma_max=50)
        >>> start = Teleport(process, torch.zeros(2), torch.eye(2), t=float(process.time(0.0)))
        >>> model = Guided(gaussian(process, torch.zeros(2), torch.eye(2)), start.times(5), start=start, shape=(2,))
        >>> bool(0.6 < motes.sample(model, 500, seed=0, progress=False).view.std() < 1.2)
        True
    """

    process: Process
    mean: Tensor
    covariance: Tensor
    t: float
    values: Tensor = field(init=False, repr=False)
    axes: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        d = self.mean.numel()
        if self.covariance.shape != (d, d):
            raise ShapeError(f"a mean of {d} numbers needs a covariance ({d}, {d}), not {tuple(self.covariance.shape)}")
        if not self.process.t_min <= self.t <= self.process.t_max:
            raise MotesError(f"t={self.t} must lie in [{self.process.t_min}, {self.process.t_max}]")
        values, axes = torch.linalg.eigh(self.covariance.double().cpu())
        if float(values[0]) < -1e-8 * float(values[-1]):
            raise MotesError(f"the covariance has the negative eigenvalue {float(values[0]):.3g}")
        object.__setattr__(self, "values", values.clamp(min=0))
        object.__setattr__(self, "axes", axes)

    @classmethod
    def fitted(cls, process: Process, samples: Tensor, t: float) -> Teleport:
        """With the mean and the covariance of samples (n, *shape) of the data; n may be less than d."""
        flat = samples.double().flatten(1)
        return cls(process, samples.double().mean(0), torch.cov(flat.T, correction=0).reshape(flat.shape[1], -1), t)

    def times(self, steps: int) -> Tensor:
        """(steps + 1,) falling times from t to t_min, by the process's own spacing."""
        process = self.process
        if process.spacing == "time":
            return torch.linspace(self.t, process.t_min, steps + 1, dtype=torch.float64)
        ends = [float(process.log_snr(t)) for t in (self.t, process.t_min)]
        times = process.time(torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64))
        times[0], times[-1] = self.t, process.t_min
        return times

    def __call__(self, rng: Rng, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        noise = rng.normal(shape, dtype=dtype)
        return self.flow(noise * self.process.start_std, self.process.t_max, self.t)

    def flow(self, x: Tensor, t: float, s: float) -> Tensor:
        """States (n, *shape) at time t carried to time s by the flow of the normal law."""
        alpha_t, alpha_s = float(self.process.alpha(t)), float(self.process.alpha(s))
        clock_t, clock_s = (float(torch.exp(-2 * self.process.log_snr(u))) for u in (t, s))
        factor = torch.sqrt((clock_s + self.values) / (clock_t + self.values))
        mean, axes = self.mean.flatten().double().to(x.device), self.axes.to(x.device)
        away = (x.flatten(1).double() / alpha_t - mean) @ axes
        return (alpha_s * (mean + (away * factor.to(x.device)) @ axes.T)).to(x).reshape(x.shape)

    def data(self, x: Tensor, t: float) -> Tensor:
        """The prediction of the data by the normal law, for x (n, *shape) at time t."""
        alpha, sigma = float(self.process.alpha(t)), float(self.process.sigma(t))
        mean, axes = self.mean.flatten().double().to(x.device), self.axes.to(x.device)
        gain = (alpha * self.values / (alpha**2 * self.values + sigma**2)).to(x.device)
        away = (x.flatten(1).double() - alpha * mean) @ axes
        return (mean + (away * gain) @ axes.T).to(x).reshape(x.shape)

    def distance(self, denoiser: Denoiser, samples: Tensor, t: float, rng: Rng) -> Estimate[Tensor]:
        """How far the model's prediction is from the normal law's at time t, as a share of the data's variance.

        E|D(x_t) - D_normal(x_t)|^2 / trace(covariance) over noised samples (n, *shape). Land where it is still small.
        """
        noise = rng.normal(tuple(samples.shape), dtype=samples.dtype).to(samples.device)
        x = float(self.process.alpha(t)) * samples + float(self.process.sigma(t)) * noise
        with torch.no_grad():
            gap = (denoiser.data(x, t) - self.data(x, t)).double().flatten(1).square().sum(1) / self.values.sum()
        return independent_mean(gap)
