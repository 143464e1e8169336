"""What a denoiser is worth, in one table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.arguments import check_networks, check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.calibration import Calibration, calibration
from motes.diffusion.diagnostics.common import noised
from motes.diffusion.diagnostics.conservative import non_conservativeness
from motes.diffusion.diagnostics.entropy import EntropyRate, entropy_rate
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class DenoiserDiagnosis:
    """A denoiser by noise level.

    Attributes:
        calibration: its mean error, its error, and the error that its Jacobian claims.
        rate: the entropy rate of its score, and the bound.
        antisymmetric: (T,) the share of its score's Jacobian that is no gradient.
        warnings: what is wrong by more than 4.9 standard errors, a sentence each.
    """

    calibration: Calibration
    rate: EntropyRate
    antisymmetric: Tensor
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        c = self.calibration
        names = ("bias^2", "error", "claimed", "rate", "bound")
        head = " ".join([f"{'noise level':>12}", *(f"{name:>10}" for name in names), f"{'curl':>8}"])
        columns = (c.noise_level, c.bias.value, c.error.value, c.claimed.value)
        columns += (self.rate.model.value, self.rate.bound.value, self.antisymmetric)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        lines = [" ".join([f"{row[0]:12.4g}", *(f"{v:10.4g}" for v in row[1:-1]), f"{row[-1]:8.2g}"]) for row in rows]
        return "\n".join([head, *lines, *self.warnings])


def diagnose(
    denoiser: Denoiser, samples: Tensor, *, seed: int | Rng, levels: int = 8, micro_batch: int | None = None
) -> DenoiserDiagnosis:
    """A denoiser examined on data that it was not trained on, at some noise levels.

    Args:
        denoiser: the model.
        samples: (n, *shape) data, n >= 3.
        seed: a whole number or an Rng, of all noise.
        levels: how many levels, equal in log-snr between t_max and t_min, the ends left out.
        micro_batch: rows a call of the model.

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(2), torch.eye(2))
        >>> diagnose(denoiser, Rng(0).at("x").normal((200, 2)), seed=Rng(0)).warnings
        ()
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    check_tensors(samples=samples)
    times = denoiser.process.times(levels + 1, "snr")[1:-1]
    found = calibration(denoiser, samples, times, seed=rng.at("calibration"), micro_batch=micro_batch)
    rate = entropy_rate(denoiser, samples, times, seed=rng.at("entropy"), micro_batch=micro_batch)
    share = []
    size = micro_batch or len(samples)
    for k, t in enumerate(times.tolist()):
        x, _ = noised(denoiser.process, samples[: max(size, 2)], t, rng.at("points", inner=k))
        share.append(non_conservativeness(denoiser, x, t, seed=rng.at(f"probes-{k}")).share)
    warnings = []
    for k, sigma in enumerate(found.noise_level.tolist()):
        where = f"at noise level {sigma:.4g}"
        if found.bias.value[k] > 4.9 * found.bias.se[k] and found.bias.value[k] > 1e-3 * found.error.value[k]:
            warnings.append(f"{where} the score does not average to zero: see `calibrated`")
        gap = float(found.excess.value[k])
        if abs(gap) > 4.9 * float(found.excess.se[k]):
            word = "larger" if gap > 0 else "smaller"
            warnings.append(f"{where} the error is {word} than the denoiser's Jacobian claims")
        if share[k] > 0.01:
            warnings.append(f"{where} {share[k]:.1%} of the score's Jacobian is no gradient of a density")
    return DenoiserDiagnosis(found, rate, torch.tensor(share, dtype=torch.float64), tuple(warnings))
