"""Integrators of the probability flow: each moves states from one time to the next, given the prediction at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from motes.diffusion.processes.process import Process

Model = Callable[[Tensor, float], Tensor]
"""The denoised prediction of states at a time."""


@dataclass(frozen=True)
class Leg:
    """One step from (x, t) to time s, with the prediction at its beginning and the one before that.

    Attributes:
        x, t, s: the states, their time, and the time to reach.
        denoised: the prediction at x.
        previous: the prediction at time `before`, of the step before; None at the first.
        model: asks for the prediction elsewhere.
    """

    process: Process
    x: Tensor
    t: float
    s: float
    denoised: Tensor
    previous: Tensor | None
    before: float
    model: Model


def flow(process: Process, t: float) -> tuple[float, float]:
    """(a, b) of dx/dt = a x + b denoised at time t: alpha' data + sigma' (x - alpha data) / sigma."""
    alpha, (alpha_rate, sigma_rate) = process.alpha(t), process.rates(t)
    slope = sigma_rate / process.sigma(t)
    return float(slope), float(alpha_rate - slope * alpha)


def euler(leg: Leg) -> Tensor:
    """Euler's step of dx/dt, first order; on straight lines the same as "ddim"."""
    a, b = flow(leg.process, leg.t)
    return leg.x + (leg.s - leg.t) * (a * leg.x + b * leg.denoised)


def ddim(leg: Leg) -> Tensor:
    """x_s = alpha_s data + sigma_s noise for the predictions at t, first order: exact where they do not change.

    References:
        Song, Meng & Ermon (2021), Denoising Diffusion Implicit Models, ICLR, Eq. (12).
    """
    return _kept(leg, leg.denoised)


def heun(leg: Leg) -> Tensor:
    """The trapezoid of dx/dt, with Euler's step as its guess: second order, two evaluations.

    References:
        Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space, NeurIPS, Algorithm 1.
    """
    if float(leg.process.sigma(leg.s)) == 0:
        return ddim(leg)  # no noise is left to be predicted there
    (a, b), (c, d), step = flow(leg.process, leg.t), flow(leg.process, leg.s), leg.s - leg.t
    first = a * leg.x + b * leg.denoised
    guess = leg.x + step * first
    return leg.x + 0.5 * step * (first + c * guess + d * leg.model(guess, leg.s))


def multistep(leg: Leg) -> Tensor:
    """The exponential step with the prediction extrapolated from this one and the last: second order, one evaluation.

    References:
        Lu, Zhou, Bao, Chen, Li & Zhu (2022), DPM-Solver++, arXiv 2211.01095, Algorithm 2 (2M).
    """
    if leg.previous is None or float(leg.process.sigma(leg.s)) == 0:
        return _kept(leg, leg.denoised)
    log_snr = [float(leg.process.log_snr(t)) for t in (leg.before, leg.t, leg.s)]
    weight = (log_snr[2] - log_snr[1]) / (2 * (log_snr[1] - log_snr[0]))
    return _kept(leg, leg.denoised + weight * (leg.denoised - leg.previous))


def _kept(leg: Leg, denoised: Tensor) -> Tensor:
    keep = float(leg.process.sigma(leg.s) / leg.process.sigma(leg.t))
    return keep * leg.x + float(leg.process.alpha(leg.s) - keep * leg.process.alpha(leg.t)) * denoised


FLOWS: dict[str, Callable[[Leg], Tensor]] = {"euler": euler, "ddim": ddim, "heun": heun, "dpm++2m": multistep}
