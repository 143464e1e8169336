"""Energies: a network whose score is a gradient, trained as a denoiser or from the score of another one."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.diffusion.training.denoising import noised
from motes.diffusion.training.scaled import scales
from motes.learn.objective import Objective
from motes.rng import Rng


class Energy(nn.Module):
    """A network that predicts noise as the gradient of a log-density, which it can tell as well.

    With the standard deviation s of the data, v = alpha^2 s^2 + sigma^2, u = x / sqrt(v) and any network F(u, t) of the
    shape of x,

        log q_t(x) = -|u|^2 / 2 + (alpha s / sigma) <u, F(u, t)> + a constant of t,
        noise = -sigma grad log q_t(x) = sigma x / v - (alpha s / sqrt(v)) (F + (dF/du)' u),

    so F = 0 is exact for normal data and F has the scale of a velocity. F is told the place of t in [0, 1], linear in
    log(alpha / sigma). The constants differ between times: densities compare states at one time, and a normaliser made
    of them is known up to a factor only. `Denoising(process, "noise")` trains it; a step costs about twice as much.

    Args:
        network: F, maps ((N, ...), (N,)) to the shape of its first argument; smooth, for it is differentiated.
        process: gives alpha and sigma.
        spread: the standard deviation s of the data.

    Raises:
        ValueError: on a call, for a spread that is not positive.

    References:
        Salimans & Ho (2021), Should EBMs Model the Energy or the Score?, ICLR workshop.
        Du et al. (2023), Reduce, Reuse, Recycle, ICML (energies as inner products).

    Example:
        >>> import torch
        >>> from motes.diffusion import Denoiser, VariancePreserving
        >>> process = VariancePreserving()
        >>> energy = Energy(lambda u, t: torch.zeros_like(u), process)  # the standard normal law
        >>> Denoiser(energy, process, predicts="noise").score(torch.ones(1, 2), 0.5).detach()
        tensor([[-1., -1.]])
    """

    network: Any
    process: Process
    spread: float

    def __init__(self, network: Any, process: Process, *, spread: float = 1.0):
        super().__init__()
        self.network, self.process, self.spread = network, process, spread

    def log_density(self, x: Tensor, t: Tensor, **more: Any) -> Tensor:
        """(N,) nats up to a constant of the time, of states x (N, ...) at times t (N,)."""
        at = scales(self.process, self.spread, x, t)
        u = x / at.root
        inner = (u * self.network(u, at.place, **more)).flatten(1).sum(1)
        return (at.signal / at.sigma).flatten() * inner - 0.5 * u.square().flatten(1).sum(1)

    def forward(self, x: Tensor, t: Tensor, **more: Any) -> Tensor:
        """The predicted noise, like x."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            total = self.log_density(z, t, **more).sum()
            (slope,) = torch.autograd.grad(total, z, create_graph=keep)
        return -scales(self.process, self.spread, x, t).sigma * slope


@dataclass(frozen=True)
class Distillation(Objective):
    """The squared distance between the noise that a network and a teacher predict, at states of the teacher's process.

    For an `Energy` the optimum is the part of the teacher's score that is a gradient (its Helmholtz projection under
    the law of the states): what it loses is the curl. Any other network learns to copy the teacher.

    Args:
        teacher: the denoiser to learn from.
        spacing: how times are spread, "time" or "snr"; the process's default if None.

    References:
        Thornton, Bethune, Zhang, Bradley, Nakkiran & Zhai (2025), Composition and Control with Distilled Energy
        Diffusion Models and Sequential Monte Carlo, AISTATS.
    """

    teacher: Denoiser
    _: KW_ONLY
    spacing: str | None = None

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        at = noised(rng, self.teacher.process, batch[0], self.spacing)
        with torch.no_grad():
            wanted = self.teacher.noise(at.x, at.t)
        return (network(at.x, at.t.to(at.x)) - wanted).square().flatten(1).mean(1)
