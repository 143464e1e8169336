"""How likely images are under a diffusion or flow model, by its probability flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from motes.core.micro_batches import in_parts
from motes.diffusion.arguments import check_networks, check_tensors
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.evaluation.checks import not_finite, refuse
from motes.diffusion.flows.solvers import flow
from motes.diffusion.processes.transition import falling
from motes.errors import MotesError, check_at_least
from motes.rng import Rng
from motes.rng.seed import seeded

LARGE = 1024
"""Dimensions above which the exact divergence, one backward pass a dimension and step, is refused."""


@dataclass(frozen=True)
class Likelihood:
    """The log-density of images, and how wrong it may be.

    It is no `Estimate`: of its two errors one has a sign and more steps cure it, and the other is 0 without probes.

    Attributes:
        value: (N,) float64, nats.
        discretisation: (N,) float64, nats: the error made by finitely many steps, estimated from a run of half as many:
            value - discretisation is the extrapolated value.
        se: (N,) float64, nats: the standard error that random probes leave; 0 where the divergence is exact, NaN with
            one probe.
    """

    value: Tensor
    discretisation: Tensor
    se: Tensor


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    steps: int | Tensor,
    *,
    seed: int | Rng | None = None,
    probes: int = 8,
    micro_batch: int | None = None,
) -> Likelihood:
    """The log-density of x (N, *shape) under the law that the probability flow makes of its start.

    The flow carries x from t_min to t_max by Heun's rule; the log-density is that of the normal start there plus the
    integral of the flow's divergence, by the trapezoid over the same times. Both are of second order, so the difference
    to a run with every second time is three times the error. It is the density at t_min, that is of data with the
    process's least noise in it.

    Args:
        denoiser: the model, with its process; it must keep gradients.
        x: (N, *shape), at t_min.
        steps: the number of steps K over the process's grid, even; or the falling times (K + 1,).
        seed: draws the random signs of Hutchinson's estimate of the divergence, unbiased in log-density; None computes
            it exactly, with one backward pass a dimension.
        probes: sign vectors a particle, the same at every time.
        micro_batch: images a call of the model.

    Raises:
        NanLogPotential: the flow left the finite numbers; names particles.
        MotesError: the model keeps no gradients.
        ValueError: an odd number of steps, no probe, or more dimensions than the exact divergence is good for.

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations, ICLR, section
        4.3 and appendix D.2. Hutchinson (1990), Communications in Statistics 19. Grathwohl, Chen, Bettencourt,
        Sutskever & Duvenaud (2019), FFJORD, ICLR, section 3 (the same signs at every time).

    Example:
        >>> import math, torch
        >>> from motes.diffusion import VariancePreserving, gaussian
        >>> from motes.diffusion.flows.likelihood import log_likelihood
        >>> denoiser = gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))
        >>> found = log_likelihood(denoiser, torch.zeros(1, 1), 20)
        >>> abs(float(found.value) + math.log(2 * math.pi) / 2) < 1e-3
        True
    """
    rng = None if seed is None else seeded(seed)
    check_tensors(x=x)
    check_networks(denoiser=denoiser)
    process, d = denoiser.process, x[0].numel()
    times = process.times(steps) if isinstance(steps, int) else falling(steps, process)
    if len(times) % 2 == 0:
        raise MotesError(f"the number of steps must be even, for the run with half of them; not {len(times) - 1}")
    check_at_least(1, probes=probes)
    if rng is None and d > LARGE:
        raise MotesError(f"{d} dimensions need as many backward passes a step: give a seed for random probes")
    up = times.flip(0).tolist()
    if float(process.sigma(up[0])) == 0:
        raise MotesError("the flow cannot start where sigma = 0: give the process a small t_min > 0")
    if rng is None:
        signs = torch.zeros(len(x), 0, *x.shape[1:], dtype=x.dtype, device=x.device)
    else:
        drawn = [rng.at("probe", inner=j).uniform(tuple(x.shape), dtype=x.dtype) for j in range(probes)]
        signs = torch.where(torch.stack(drawn, 1) < 0.5, -1.0, 1.0).to(x)

    def both(x: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
        """(n, probes or 1) log-densities with all the times and with every second one."""
        begun = _predicted(denoiser, x, up[0], signs)
        return tuple(_along(denoiser, x, grid, signs, begun) for grid in (up, up[::2]))  # type: ignore[return-value]

    fine, coarse = in_parts(both, micro_batch, x.detach(), signs)
    refuse(not_finite(fine) | not_finite(coarse), "the probability flow left the finite numbers", "model")
    value = fine.mean(1)
    spread = torch.zeros_like(value) if rng is None else torch.full_like(value, math.nan)
    if rng is not None and probes > 1:
        spread = fine.std(1) / math.sqrt(probes)
    return Likelihood(value, (coarse.mean(1) - value) / 3, spread)


def _along(denoiser: Denoiser, x: Tensor, times: list[float], signs: Tensor, begun: tuple[Tensor, Tensor]) -> Tensor:
    """(n, probes or 1) float64: the log-density of x at times[0], by the flow up to times[-1]."""
    process, (denoised, trace), d = denoiser.process, begun, x[0].numel()
    a, b = flow(process, times[0])
    slope, total = a * d + b * trace, torch.zeros_like(trace)
    for t, s in pairwise(times):
        first, step, before = a * x + b * denoised, s - t, slope
        a, b = flow(process, s)
        guess = x + step * first
        with torch.no_grad():
            second = a * guess + b * denoiser.data(guess, s)
        x = x + 0.5 * step * (first + second)
        denoised, trace = _predicted(denoiser, x, s, signs)
        slope = a * d + b * trace
        total = total + 0.5 * step * (before + slope)
    std = process.start_std
    square = x.to(torch.float64).flatten(1).square().sum(1, keepdim=True).cpu()
    return total - 0.5 * square / std**2 - d * (math.log(std) + 0.5 * math.log(2 * math.pi))


def _predicted(denoiser: Denoiser, x: Tensor, t: float, signs: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction at x, and (n, probes) float64 estimates of the trace of its Jacobian, or (n, 1) the trace."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        denoised = denoiser.data(x, t)
    flat, traces = denoised.flatten(1), []
    if signs.shape[1]:
        for v in signs.unbind(1):
            (pulled,) = torch.autograd.grad(denoised, x, v, retain_graph=True)
            traces.append((pulled * v).flatten(1).sum(1, dtype=torch.float64))
        trace = torch.stack(traces, 1)
    else:
        for j in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, j].sum(), x, retain_graph=True)
            traces.append(row.flatten(1)[:, j])
        trace = torch.stack(traces, 1).sum(1, keepdim=True, dtype=torch.float64)
    return denoised.detach(), trace.cpu()
