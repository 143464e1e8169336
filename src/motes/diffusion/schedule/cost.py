"""What the steps between any two times of a grid cost a sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process
from motes.diffusion.processes.transition import INTEGRATORS
from motes.rng import Rng


def forward_path(process: Process, samples: Tensor, times: Tensor, rng: Rng) -> list[Tensor]:
    """x_t at each of the falling times (M,), joint: x_t / alpha = x_0 + a Brownian motion at time sigma^2 / alpha^2."""
    clock = (-2 * process.log_snr(times)).exp()
    began = torch.cat([clock[1:], torch.zeros(1, dtype=clock.dtype)])
    place, out = samples, []
    for m in reversed(range(len(times))):
        xi = rng.at(f"increment-{m}").normal(tuple(samples.shape), dtype=samples.dtype).to(samples.device)
        place = place + float(torch.sqrt(clock[m] - began[m])) * xi
        out.append(float(process.alpha(times[m])) * place)
    return out[::-1]


def path_divergence(
    data: Callable[[Tensor, Tensor], Tensor], process: Process, samples: Tensor, times: Tensor, rng: Rng
) -> Tensor:
    """(M, M) the divergence that a step from time i to time j leaves, nats, by the trapezoid rule in snr."""
    states = forward_path(process, samples, times, rng)
    d = torch.stack([data(x, t).flatten().double() for x, t in zip(states, times, strict=True)])
    square = torch.cdist(d, d, compute_mode="donot_use_mm_for_euclid_dist").square().cpu() / len(samples)
    snr = (2 * process.log_snr(times)).exp()
    cell = 0.25 * (square[:, 1:] + square[:, :-1]) * (snr[1:] - snr[:-1])
    total = torch.cat([torch.zeros(len(times), 1, dtype=torch.float64), cell.cumsum(1)], 1)
    return total - total.diagonal()[:, None]


def flow_cost(
    data: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    samples: Tensor,
    times: Tensor,
    rng: Rng,
    integrator: str,
) -> Tensor:
    """(M, M) the error of a step from time i to time j on the flow through the samples, in shares of the spread."""
    m = len(times)
    z = rng.normal(tuple(samples.shape), dtype=samples.dtype).to(samples.device)
    states = [float(process.alpha(times[0])) * samples + float(process.sigma(times[0])) * z]
    predicted: list[Tensor] = []
    log_snr = process.log_snr(times)
    keep, pull, _ = INTEGRATORS["ancestral"](process, times[:-1], times[1:], 0.0)
    for i in range(m - 1):
        predicted.append(data(states[i], times[i]))
        slope = 0.0 if i == 0 else float(0.5 * (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1]))
        middle = predicted[i] if i == 0 else predicted[i] + slope * (predicted[i] - predicted[i - 1])
        states.append(float(keep[i]) * states[i] + float(pull[i]) * middle)  # second order in the cell
    flow = torch.stack(states).flatten(1).double()
    spread = torch.stack([(s - s.mean(0)).double().square().mean().sqrt() for s in states]).cpu()
    cost = torch.full((m, m), torch.inf, dtype=torch.float64)
    for i in range(m - 1):
        t = times[i].expand(m - 1 - i)
        keep, pull, _ = (v.to(flow.device)[:, None] for v in INTEGRATORS[integrator](process, t, times[i + 1 :], 0.0))
        step = keep * flow[i] + pull * predicted[i].flatten().double()
        cost[i, i + 1 :] = (step - flow[i + 1 :]).square().mean(1).sqrt().cpu() / spread[i + 1 :]
    return cost
