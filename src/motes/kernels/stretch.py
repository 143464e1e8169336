"""The affine-invariant stretch move of an ensemble."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.dynamics.bracket import rows_of
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class Stretch(Kernel):
    """The affine-invariant stretch move: each particle moves on the line through itself and another one.

    The particles are two halves. Those of one half, x, draw a partner y from the other, which stands still, and propose
    y + z (x - y) with z in [1/a, a] of density proportional to z^(-1/2); it is accepted with probability
    min(1, z^(d-1) p(proposal) / p(x)). Then the halves change roles. The law of the whole population, independent
    particles with density p, is invariant: exact, though particles look at each other. Needs no scales, and works
    alike in all affine coordinates; in many dimensions (20 and more) it mixes slowly.

    References:
        Goodman & Weare (2010), Ensemble samplers with affine invariance, Communications in Applied Mathematics and
        Computational Science 5(1), equations 7 to 9.
        Foreman-Mackey, Hogg, Lang & Goodman (2013), emcee: the MCMC hammer, PASP 125, algorithm 3 (the two halves).

    Args:
        a: the longest stretch, above 1.

    Raises:
        ValueError: a is not above 1.
        MotesError: fewer particles than 2 d, which cannot leave the plane that they lie in.
    """

    a: float = 2.0

    name: ClassVar[str] = "stretch"
    gradient: ClassVar[bool] = False
    ensemble: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (cited("goodman2010", "the stretch kernel"),)

    def __post_init__(self) -> None:
        if not self.a > 1:
            raise MotesError(f"a must be above 1, not {self.a}")

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        n, d = state["position"].shape
        if n < max(2, 2 * d):
            raise MotesError(
                f"the stretch move in {d} dimensions needs at least {max(2, 2 * d)} particles, not {n}: use more, or "
                "a kernel that moves particles one by one"
            )
        half = (n + 1) // 2
        parts = [{k: v[:half] for k, v in state.items()}, {k: v[half:] for k, v in state.items()}]
        acceptance = []
        for i, rows in enumerate((torch.arange(half), torch.arange(half, n))):
            x, others, m = parts[i]["position"], parts[1 - i]["position"], len(rows)
            own = rows_of(rng, rows)
            partner = others[own.at("partner").integers((m,), len(others))]
            u = own.at("stretch").uniform((m, 1), dtype=x.dtype)
            z = (1 + (self.a - 1) * u).square() / self.a  # equation 9 by inversion
            piece = target.part(rows)
            proposal = piece.evaluate(torch.lerp(partner, x, z), False)
            log_ratio = (d - 1) * z[:, 0].log() + piece.log_density(proposal) - piece.log_density(parts[i])
            probability, accept = accepted(own, torch.where(log_ratio.isnan(), -math.inf, log_ratio))
            parts[i] = select(accept, proposal, parts[i])
            acceptance.append(probability)
        return Sweep({k: torch.cat([parts[0][k], v]) for k, v in parts[1].items()}, torch.cat(acceptance), 1)
