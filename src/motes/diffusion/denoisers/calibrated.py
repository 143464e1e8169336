"""A pretrained denoiser whose predictions are right on average, at every noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks, check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.errors import ShapeError
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True, eq=False)
class Shifted:
    """A model of the data less its mean error, which is interpolated between the times where it was measured.

    Args:
        denoiser: the model as it was.
        times: (T,) rising.
        shift: (T, *shape), what is taken off the prediction of the data.
        se: (T, *shape), the standard errors of `shift`.
    """

    denoiser: Denoiser
    times: Tensor
    shift: Tensor
    se: Tensor

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The prediction of the data for x (n, *shape) at times (n,)."""
        at = t.double().cpu().clamp(self.times[0], self.times[-1])
        right = torch.searchsorted(self.times, at).clamp(1, max(len(self.times) - 1, 1))
        if len(self.times) == 1:
            return self.denoiser.data(x, t) - self.shift[0].to(x)
        width = self.times[right] - self.times[right - 1]
        share = ((at - self.times[right - 1]) / width).reshape(-1, *[1] * (x.ndim - 1))
        shift = (1 - share) * self.shift[right - 1] + share * self.shift[right]
        return self.denoiser.data(x, t) - shift.to(x)


def calibrated(
    denoiser: Denoiser,
    samples: Tensor,
    times: Tensor,
    *,
    seed: int | Rng,
    draws: int = 1,
    micro_batch: int | None = None,
) -> Denoiser:
    """A denoiser whose score averages to zero under noised data, as the true score does.

    alpha_{t|s} * score(x_t) is a martingale of the forward process, so E score(x_t, t) = 0; a model has
    eta_t = E score(x_t, t) instead. Subtracting it lowers the loss E|score + noise / sigma|^2 by exactly |eta_t|^2, and
    so the divergence from the data's law. In terms of the data eta_t = alpha / sigma^2 E[D(x_t) - x_0], which is
    measured on samples with pairs of opposite noise, so that it holds for the loss of those samples and noises too.

    A shift that is measured has an error of its own: over fresh data the loss drops by |eta|^2 less the variance of the
    estimate. It is linear in time between the times given and constant outside.

    Args:
        denoiser: the pretrained model.
        samples: (n, *shape) data that the model should be right for.
        times: (T,) where to measure, such as the times of the sampler.
        seed: a whole number or an Rng, of the noise.
        draws: pairs of noises a sample and time.
        micro_batch: rows a call of the model.

    Raises:
        ShapeError: fewer than 2 samples.

    References:
        Pang, Lu, Du, Lin, Yan & Deng (2023), On Calibrating Diffusion Probabilistic Models, NeurIPS, section 3.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import Denoiser, VariancePreserving
        >>> off = Denoiser(lambda x, t: 0 * x + 0.3, VariancePreserving(), predicts="data")
        >>> right = calibrated(off, torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5]), seed=Rng(0))
        >>> abs(float(right.data(torch.zeros(1, 1), 0.5))) < 1e-6
        True
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    check_tensors(samples=samples)
    if samples.ndim < 2 or len(samples) < 2:
        raise ShapeError(f"need at least 2 samples (n, *shape), not a tensor of shape {tuple(samples.shape)}")
    times = torch.sort(torch.as_tensor(times, dtype=torch.float64).flatten()).values
    process, shifts, errors = denoiser.process, [], []
    for k, t in enumerate(times.tolist()):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        gap = torch.zeros(samples.shape, dtype=torch.float64)
        for i in range(draws):
            noise = rng.at(f"calibration-{k}", inner=i).normal(tuple(samples.shape), dtype=samples.dtype)
            for sign in (1, -1):
                x = alpha * samples + sign * sigma * noise.to(samples.device)
                with torch.no_grad():
                    out = in_parts(lambda part, t=t: denoiser.data(part, t), micro_batch, x)
                gap += (out - samples).double().cpu() / (2 * draws)
        shifts.append(gap.mean(0))
        errors.append(gap.std(0) / len(gap) ** 0.5)
    model = Shifted(denoiser, times, torch.stack(shifts), torch.stack(errors))
    return Denoiser(model, process, predicts="data", condition="t", name=f"{denoiser.name} calibrated".strip())
