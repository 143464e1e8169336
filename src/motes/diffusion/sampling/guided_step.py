"""One step of a guided sampler and its weight against the sampler without guidance, which is computed here only."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.diffusion.processes.transition import Transitions
from motes.rng import Rng


def guided_step(
    rng: Rng, table: Transitions, k: int, x: dict[str, Tensor], share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The states after step k, and the log of the plain transition's density over the guided one's.

    Args:
        rng: the address of the step.
        table: the steps of the sampler.
        k: the number of steps done.
        x: what the evaluator said of the particles: "state" and "denoised" (N, *shape); where there is guidance "shift"
            like them, how far it moves the mean; and "previous", the predictions of the step before.
        share: what multiplies the shift.

    Returns:
        The states (N, *shape), and (N,) float64, nats: zero without guidance.
    """
    old, std = x["state"], float(table.std[k])
    xi = rng.at("noise").normal(tuple(old.shape), dtype=old.dtype).to(old.device)
    log_ratio = torch.zeros(len(old), dtype=torch.float64)
    if "shift" in x:
        shift = x["shift"] * (share / std)
        log_ratio = log_reference_over_guided(xi, shift)
        xi.add_(shift)
    return table.mean(k, old, x["denoised"], x.get("previous")).add_(xi.mul_(std)), log_ratio


def log_reference_over_guided(xi: Tensor, shift: Tensor) -> Tensor:
    """(N,) log of N(xi + shift; 0, I) / N(xi; 0, I), nats: the weight of a transition whose mean is moved.

    The discrete form of Girsanov's theorem, exact at any step size; xi is the noise drawn, both are (N, ...) in
    standard deviations of the transition.
    """
    xi, shift = xi.to(torch.float64).flatten(1), shift.to(torch.float64).flatten(1)
    return -(0.5 * shift).add_(xi).mul_(shift).sum(1).cpu()
