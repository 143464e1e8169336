"""Independence Metropolis: proposals from a law that is fitted to the population."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import by_half, scaled, whiten
from motes.kernels.kernel import Parameters, State, Sweep, Target, kernels, metropolis
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class IndependenceMetropolis(Preconditioned):
    """Independence Metropolis: propose from a Gaussian fitted to the population, with a defensive Student-t part.

    The proposal does not look at where the particle is: y = m + S u with u from

        q(u) = (1 - e) N(u | 0, I) + e t(u | 0, I, k degrees of freedom),

    and it is taken with probability min(1, p(y) q(x) / (p(x) q(y))). Mean m and scale S come from the half of the
    population that the particle is not in. The heavy tail bounds p / q for every target whose tails are no heavier than
    those of the t, so that no particle sticks for ever (Mengersen & Tweedie 1996, theorem 2.1: the chain is uniformly
    ergodic just when p / q is bounded). Good where the population nearly is Gaussian, then one sweep forgets all; the
    acceptance falls exponentially with the dimension elsewhere. Exact; adaptation biases by O(1/N).

    References:
        Hastings (1970), Monte Carlo sampling methods using Markov chains and their applications, Biometrika 57(1).
        Mengersen & Tweedie (1996), Rates of convergence of the Hastings and Metropolis algorithms, Annals of
        Statistics 24(1).
        Chopin (2002), A sequential particle filter method for static models, Biometrika 89(3).

    Args:
        defensive: the weight e of the Student-t part; 1 leaves nothing else, 0 nothing of it.
        degrees: the degrees of freedom k of the Student-t part.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: `defensive` is outside of [0, 1] or `degrees` is not positive.
    """

    defensive: float = 0.1
    _: KW_ONLY
    degrees: float = 3.0
    scale: str = "auto"

    name: ClassVar[str] = "independence"
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (
        cited("mengersen1996", "the independence kernel's heavy tail"),
        cited("chopin2002", "the independence kernel's proposals"),
    )

    def __post_init__(self) -> None:
        if not (0 <= self.defensive <= 1 and self.degrees > 0):
            raise MotesError(f"IndependenceMetropolis needs 0 <= defensive <= 1 and degrees > 0, not {self}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"mean": torch.zeros(2, d, dtype=dtype), "scale": torch.ones(2, d, dtype=dtype)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, scale = state["position"], parameters["scale"]
        mean = by_half(parameters["mean"], len(x))
        white = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
        if self.defensive > 0:
            spread = rng.at("tail").gamma((len(x), 1), self.degrees / 2).mul_(2 / self.degrees).rsqrt_().to(x)
            heavy = rng.at("part").uniform((len(x), 1)) < self.defensive
            white = torch.where(heavy, spread * white, white)
        proposal = target.evaluate(mean + scaled(white, scale), False)
        tilt = self._log_density(whiten(x - mean, scale)) - self._log_density(white)
        return metropolis(rng, target, proposal, state, tilt=tilt)

    def _log_density(self, white: Tensor) -> Tensor:
        """(N,) log q(u), less the constant -d/2 log(2 pi)."""
        d, k, e = white.shape[1], self.degrees, self.defensive
        square = white.square().sum(1).to(torch.float64)
        constant = math.lgamma((k + d) / 2) - math.lgamma(k / 2) - d / 2 * math.log(k / 2)
        tail = constant - (k + d) / 2 * torch.log1p(square / k)
        if e in (0, 1):
            return tail if e else -0.5 * square
        return torch.logaddexp(-0.5 * square + math.log1p(-e), tail + math.log(e))
