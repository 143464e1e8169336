"""Models that know their density: a network for the energy, whose gradient is the score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.errors import ShapeError


class Gradient:
    """An energy and its score from one call of the network: asked for both at one point, it runs once.

    Args:
        network: maps (x (N, ...), condition (N,)) to energies (N,), nats.
        condition: what the network is told, as for `Denoiser`.
        process: for the noise level, if that is the condition.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    process: Process

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        process: Process,
        condition: Literal["t", "sigma"] | Callable[[Tensor], Tensor] = "t",
    ):
        self.network, self.process, self.condition = network, process, condition
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None  # the last x and t (the objects), and their energies

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Minus the gradient of the energy, like x; differentiable where x requires a gradient."""
        keep = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            at = x if keep else x.detach().requires_grad_(True)
            energy = self._energies(at, t)
            (gradient,) = torch.autograd.grad(energy.sum(), at, create_graph=keep)
        self._seen = (x, t, energy if keep else energy.detach())
        return -gradient

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """(N,) minus the energy, float64."""
        if self._seen is not None and self._seen[0] is x and torch.equal(self._seen[1], t.to(self._seen[1])):
            return -self._seen[2].to(torch.float64)
        return -self._energies(x, t).to(torch.float64)

    def _energies(self, x: Tensor, t: Tensor) -> Tensor:
        if callable(self.condition):
            condition = self.condition(t)
        else:
            condition = t if self.condition == "t" else self.process.sigma(t)
        energy = self.network(x, condition.to(x))
        if energy.shape != (len(x),):
            raise ShapeError(
                f"an energy network must return one number a particle, shape ({len(x)},), not {tuple(energy.shape)}"
            )
        return energy


def energy_denoiser(
    network: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    *,
    condition: Literal["t", "sigma"] | Callable[[Tensor], Tensor] = "t",
    name: str = "",
) -> Denoiser:
    """A denoiser from a network for the energy E(x, t), with score -grad E and log-density -E.

    With it compositions get exact weights, at any number of steps. An energy knows its density but for a constant at
    each time: the particles do not mind, and the log normaliser of a composition is that of prod_i exp(-w_i E_i(x)) at
    t_min as the networks give it. It is a log-integral of energies, not of probabilities, and compares compositions of
    the same models only.

    A network distilled from a score (the gradient of E regressed on it, which keeps the score's conservative part) is
    exact for the density that it ends up with, whatever its teacher was.

    Args:
        network: maps (x (N, ...), condition (N,)) to (N,) energies, nats, by operations that keep gradients.
        process: the process it was trained for.
        condition: what the network is told: the time "t", the noise level "sigma", or a function of the time.
        name: kept with runs.

    Raises:
        ShapeError: on a call, when the network returns another shape.

    References:
        Thornton, Bethune, Zhang, Bradley, Nakkiran & Zhai (2025), Composition and Control with Distilled Energy
        Diffusion Models and Sequential Monte Carlo, AISTATS.
        Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein, Doucet & Grathwohl (2023), Reduce, Reuse,
        Recycle: Compositional Generation with Energy-Based Diffusion Models and MCMC, ICML.

    Example:
        >>> import torch
        >>> from motes.diffusion import VariancePreserving
        >>> model = energy_denoiser(lambda x, t: 0.5 * (x**2).sum(1), VariancePreserving())  # N(0, 1) at every time
        >>> float(model.score(torch.full((1, 2), 3.0), 0.5)[0, 0]), float(model.log_density(torch.ones(1, 2), 0.5))
        (-3.0, -1.0)
    """
    energy = Gradient(network, process, condition)
    return Denoiser(energy.score, process, predicts="score", name=name, log_density=energy.log_density)
