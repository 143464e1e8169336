"""How the errors of steps arise and what becomes of them: by halving, and by letting them run to the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate, independent_mean
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.diagnostics.common import noised, prediction
from motes.diffusion.processes.process import Process
from motes.diffusion.processes.transition import INTEGRATORS, transitions
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class StepErrors:
    """The errors of each step of a deterministic sampler, as mean squares a number of the image.

    Attributes:
        times: (K + 1,) falling.
        noise_level: (K,) sigma where each step begins.
        local: (K,) of one step against two halves of it, from the same place.
        final: (K,) of the images at the end, when only this step is halved: local errors as the rest of the sampler
            passes them on.
    """

    times: Tensor
    noise_level: Tensor
    local: Estimate[Tensor]
    final: Estimate[Tensor]

    @property
    def amplification(self) -> Tensor:
        """(K,) how much larger, in root mean square, an error is at the end than where it arose."""
        return torch.sqrt(self.final.value / self.local.value)


def step_errors(
    denoiser: Denoiser,
    samples: Tensor,
    steps: int | Tensor,
    *,
    seed: int | Rng,
    integrator: str = "ancestral",
    micro_batch: int | None = None,
) -> StepErrors:
    """Where a deterministic sampler goes wrong, and whether it matters at the end.

    Each step is compared with two halves of itself (equal in log-snr), and both are followed to the end by the steps
    that come after. The difference is the step's error to leading order times 1 - 2^-p for a method of local order
    p + 1: half of it for the first-order steps of this package. It says nothing about the model's own errors, and for
    samplers with noise the `align_your_steps` objective is the counterpart. Costs K (K + 5) / 2 evaluations a sample.

    Args:
        denoiser: the model.
        samples: (n, *shape) data, noised to the first time to begin from.
        steps: the number of steps, or the falling times (K + 1,).
        seed: a whole number or an Rng, of the noise.
        integrator: a name of `transition.INTEGRATORS`, used without noise.
        micro_batch: rows a call of the model.

    References:
        Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section II.4 (step halving).

    Example:
        >>> import torch
        >>> from motes import Rng
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(2), torch.eye(2))
        >>> errors = step_errors(denoiser, Rng(0).at("x").normal((20, 2)), 6, seed=Rng(0))
        >>> errors.local.value.shape
        torch.Size([6])
    """
    rng = seeded(seed)
    check_networks(denoiser=denoiser)
    process = denoiser.process
    table = transitions(process, steps, integrator=integrator, noise=0.0, still=True)
    times = table.times
    x, _ = noised(process, samples, float(times[0]), rng.at("start"))
    halved: list[Tensor] = []
    local = []
    for k in range(table.steps):
        t, s = times[k], times[k + 1]
        here = prediction(denoiser, x, float(t), micro_batch)
        middle = process.time(0.5 * (process.log_snr(t) + process.log_snr(s)))
        half = move(process, x, here, t, middle, integrator)
        there = prediction(denoiser, half, float(middle), micro_batch)
        after = move(process, half, there, middle, s, integrator)
        x = move(process, x, here, t, s, integrator)
        local.append((after - x).double().flatten(1).square().mean(1))
        # those that were halved before go the same way as all
        halved = [move(process, y, prediction(denoiser, y, float(t), micro_batch), t, s, integrator) for y in halved]
        halved.append(after)
    end = float(times[-1])
    image = prediction(denoiser, x, end, micro_batch)
    final = [(prediction(denoiser, y, end, micro_batch) - image).double().flatten(1).square().mean(1) for y in halved]
    levels = process.sigma(times[:-1])
    return StepErrors(times, levels, independent_mean(torch.stack(local, 1)), independent_mean(torch.stack(final, 1)))


def move(process: Process, x: Tensor, data: Tensor, t: Tensor, s: Tensor, integrator: str) -> Tensor:
    """One step without noise."""
    keep, pull, _ = INTEGRATORS[integrator](process, t, s, 0.0)
    return float(keep) * x + float(pull) * data
