"""Few steps that do what many do, on the whole: the two numbers of each step fitted to the model's own flow."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import not_finite, refuse
from motes.diffusion.processes.transition import Transitions, falling, transitions
from motes.errors import MotesError
from motes.rng import Rng


def learned_steps(
    denoiser: Denoiser,
    steps: int | Tensor,
    *,
    shape: tuple[int, ...],
    n: int = 256,
    seed: int | Rng = 0,
    fine: int = 20,
    dtype: torch.dtype = torch.float32,
) -> Transitions:
    """A deterministic sampler of few steps, each x_s = keep x_t + pull denoised(x_t, t) with the best two numbers.

    The teacher is the same model walked in `fine` times as many steps by the deterministic integrator; at each step
    keep and pull are the least-squares fit of the teacher's next state, from the states that the student itself is at,
    so that its earlier errors are seen. For normal data one step is exact. No network is trained, and the student asks
    the model once a step.

    Args:
        denoiser: the model.
        steps: the number of steps, or the falling times (K + 1,).
        shape: of one image.
        n: paths the fit is made from.
        seed: of the paths.
        fine: steps of the teacher in one of the student's.
        dtype: of the paths.

    Returns:
        The table, to be given as `steps` to `Guided(noise=0)`.

    Raises:
        ValueError: n or fine below 2.
        NanLogPotential: the model returned NaN or inf; names the paths as particles.

    References:
        Fu, Guo & Liu (2025), Learnable Sampler Distillation for Discrete Diffusion Models, NeurIPS (coefficients of few
        steps fitted to a sampler of many, there for tokens and by gradients; here in closed form).
    """
    check_networks(denoiser=denoiser)
    if n < 2 or fine < 2:
        raise MotesError(f"n and fine must be at least 2, not {n} and {fine}")
    rng, process = seed if isinstance(seed, Rng) else Rng(seed), denoiser.process
    times = process.times(steps) if isinstance(steps, int) else falling(steps, process)
    table = transitions(process, times, noise=0.0, still=True)
    x = process.start_std * rng.at("teacher").normal((n, *shape), dtype=dtype)
    keep, pull = torch.zeros_like(table.keep), torch.zeros_like(table.pull)
    with torch.no_grad():
        for k in range(table.steps):
            first = denoiser.data(x, float(times[k]))
            ends = process.log_snr(times[k : k + 2])
            if bool(torch.isfinite(ends).all()):
                inside = process.time(torch.linspace(float(ends[0]), float(ends[1]), fine + 1, dtype=torch.float64))
            else:  # no noise, or nothing but noise, at an end
                inside = torch.linspace(float(times[k]), float(times[k + 1]), fine + 1, dtype=torch.float64)
            inside[0], inside[-1] = times[k], times[k + 1]
            part = transitions(process, inside, noise=0.0, still=True)
            target, data = x, first
            for i in range(fine):
                target = float(part.keep[i]) * target + float(part.pull[i]) * data
                data = denoiser.data(target, float(inside[i + 1])) if i + 1 < fine else data
            bad = not_finite(first) | not_finite(target)
            refuse(bad, f"the denoised prediction is not finite at t={float(times[k]):.4g}", "model")
            basis = torch.stack([x.flatten(), first.flatten()], 1).to(torch.float64)
            goal = target.flatten().to(torch.float64)
            plain = torch.stack([table.keep[k], table.pull[k]])
            # Fitted as a correction of the plain step, so that where the two columns are one the plain step stays.
            change = torch.linalg.lstsq(basis, (goal - basis @ plain)[:, None], rcond=1e-9, driver="gelsd").solution[
                :, 0
            ]
            keep[k], pull[k] = (plain + change).tolist()
            x = float(keep[k]) * x + float(pull[k]) * first
    return replace(table, keep=keep, pull=pull)
