"""Gibbs with gradients: locally balanced proposals on whole numbers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from motes.core.cite import Reference, cited
from motes.errors import MotesError, check_name
from motes.kernels.dynamics.levels import gains, levels_of
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, kernels, select
from motes.rng import Rng


@kernels.register
@dataclass(frozen=True)
class GibbsWithGradients(Kernel):
    """Gibbs with gradients: propose the change of one coordinate that the gradient says is likely.

    The change of coordinate i to level v is proposed with probability proportional to g(exp(D_iv)), where D_iv is the
    first-order estimate of what it does to the log-density, and g(t) = sqrt(t) or t / (1 + t): with g(t) = t g(1/t),
    small changes are nearly always accepted (locally balanced). The Metropolis ratio takes the way back from the
    gradient at the proposal. Exact whatever the gradient is.

    References:
        Zanella (2020), Informed proposals for local MCMC in discrete spaces, JASA 115(530), section 2.
        Grathwohl, Swersky, Hashemi, Duvenaud & Maddison (2021), Oops I took a gradient: scalable sampling for discrete
        distributions, ICML, algorithm 1.

    Args:
        updates: proposals a sweep; None is as many as there are coordinates.
        balance: "sqrt" or "barker", which keeps very likely changes from taking all proposals.

    Raises:
        ValueError: updates is below 1, or another balancing function.
    """

    updates: int | None = None
    _: KW_ONLY
    balance: str = "sqrt"

    name: ClassVar[str] = "gibbs-with-gradients"
    gradient: ClassVar[bool] = True
    discrete: ClassVar[bool] = True
    references: ClassVar[tuple[Reference, ...]] = (
        cited("grathwohl2021", "the kernel on whole numbers"),
        cited("zanella2020", "the balance of the kernel on whole numbers"),
    )

    def __post_init__(self) -> None:
        if self.updates is not None and self.updates < 1:
            raise MotesError(f"updates must be at least 1, or None for as many as coordinates, not {self.updates}")
        check_name("balance", self.balance, ("sqrt", "barker"))

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        (n, d), levels = state["position"].shape, levels_of(target)
        updates, rate = self.updates or d, torch.zeros(n, dtype=torch.float64)
        ways = self._ways(target, state)
        for k in range(updates):
            x, step = state["position"], rng.at(f"update-{k}")
            chosen = step.at("change").categorical(ways)[:, None]
            place, new = chosen // levels, chosen % levels
            old = x.gather(1, place)
            proposal = target.evaluate(x.scatter(1, place, new.to(x.dtype)), True)
            back = self._ways(target, proposal)
            ratio = target.log_density(proposal) - target.log_density(state)
            ratio = ratio + (back.gather(1, place * levels + old.long()) - ways.gather(1, chosen))[:, 0]
            acceptance, accept = accepted(step, ratio)
            state, ways = select(accept, proposal, state), torch.where(accept[:, None], back, ways)
            rate += acceptance
        return Sweep(state, rate / updates, updates)

    def _ways(self, target: Target, state: State) -> Tensor:
        """(N, d * levels) log-probabilities of the changes, -inf for those that change nothing."""
        gain, now = gains(target, state)
        balanced = 0.5 * gain if self.balance == "sqrt" else logsigmoid(gain)
        return torch.log_softmax(balanced.scatter(2, now, -torch.inf).flatten(1), 1)
