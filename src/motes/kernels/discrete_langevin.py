"""Discrete Langevin proposals: all coordinates change at once, as the gradient says."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import check_share
from motes.kernels.dynamics.levels import gains, levels_of
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, mean_acceptance, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class DiscreteLangevin(Kernel):
    """The Metropolis-adjusted discrete Langevin kernel: each coordinate is proposed a level by itself, all at once.

    Coordinate i goes to level v with probability proportional to exp(D_iv / 2 - c |v - x_i|^2), where D_iv is the
    first-order estimate of what the change does to the log-density and c = 1 / (2 step). Then the whole proposal is
    accepted or not, with the way back from the gradient at the proposal: exact. The price c of a change follows the
    acceptance towards the wanted one; that adaptation biases by O(1/N).

    References:
        Zhang, Liu & Liu (2022), A Langevin-like sampler for discrete distributions, ICML, section 4.
        Sun, Dai & Schuurmans (2022), Optimal scaling for locally balanced proposals in discrete spaces, NeurIPS (the
        acceptance 0.574).

    Args:
        acceptance: the wanted mean acceptance, in (0, 1).
        ordinal: whether levels are numbers with (v - x_i)^2 between them; else two different levels are 1 apart.

    Raises:
        ValueError: acceptance is not in (0, 1).
    """

    acceptance: float = 0.574
    _: KW_ONLY
    ordinal: bool = False

    name: ClassVar[str] = "discrete-langevin"
    gradient: ClassVar[bool] = True
    discrete: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("zhang2022discrete", "the discrete Langevin kernel"),
        cited("sun2022", "the discrete Langevin kernel's step size"),
    )

    def __post_init__(self) -> None:
        check_share("(0, 1)", acceptance=self.acceptance)

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"price": 0.5 + 0.5 * math.log(d)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        off = self.acceptance - mean_acceptance(sweep, weight)
        return {**parameters, "price": min(max(parameters["price"] + 2 * off, 0.05), 20.0)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        x, level = state["position"], torch.arange(levels_of(target))
        ahead = self._ways(target, state, parameters["price"])
        u = rng.at("levels").uniform(tuple(x.shape), dtype=torch.float64)
        new = (u[..., None] > ahead.exp().cumsum(2)[..., :-1]).sum(2)
        proposal = target.evaluate(level.to(x.dtype)[new], True)
        back = self._ways(target, proposal, parameters["price"])
        ratio = target.log_density(proposal) - target.log_density(state) + _sum(back, x.long()) - _sum(ahead, new)
        acceptance, accept = accepted(rng, ratio)
        return Sweep(select(accept, proposal, state), acceptance, 1)

    def _ways(self, target: Target, state: State, price: float) -> Tensor:
        """(N, d, levels) log-probabilities of the levels of each coordinate."""
        gain, now = gains(target, state)
        away = (torch.arange(gain.shape[2]) - now).square()
        return torch.log_softmax(0.5 * gain - price * (away if self.ordinal else away.clamp(max=1)), 2)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return {"step_size": 0.5 / parameters["price"]}


def _sum(ways: Tensor, level: Tensor) -> Tensor:
    """(N,) the log-probability of `level` (N, d)."""
    return ways.gather(2, level[..., None]).sum((1, 2))
