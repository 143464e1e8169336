"""Weighted draws that come in families or chains, and the errors of what is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from motes.core import weights
from motes.core.estimate.batch_means import ENOUGH, SAME, chain_mean
from motes.core.estimate.estimate import Estimate
from motes.core.estimate.upper_tail import wild, wild_because
from motes.core.estimate.variance import deviations, mean_freedom, mean_se
from motes.core.history.genealogy import Genealogy, spread
from motes.errors import MotesError
from motes.rng import Rng

ROUNDING = 1e-12
ALIKE = "the number is the same for all {}, so their spread says nothing; {} not drawn have at most about 3 / ess"
BLOCK = 1 << 22
"""Weights that a jackknife holds at once."""


@dataclass(frozen=True)
class WeightedSample:
    """Draws with weights, and which of them depend on each other: those of a family, or those of a chain.

    Attributes:
        log_weight: (N,) float64, nats, not normalised.
        genealogy: the descent of the draws: who comes from one slot of an earlier generation is a family. Without it
            every draw is one.
        chains: into how many chains of equal length the draws fall, chain by chain, all of the same weight; 0 for
            draws that are no chains.
        doubt: why nothing that is computed from the draws has an error bar; empty where their spread tells.
        called: what messages call the draws.
    """

    log_weight: Tensor
    _: KW_ONLY
    genealogy: Genealogy | None = None
    chains: int = 0
    doubt: str = ""
    called: str = "draws"

    @classmethod
    def of_chains(cls, chains: int, draws: int, doubt: str = "") -> WeightedSample:
        """Equally weighted draws of some chains, as many of each."""
        return cls(torch.zeros(chains * draws, dtype=torch.float64), chains=chains, doubt=doubt)

    @property
    def n(self) -> int:
        """The number of draws."""
        return len(self.log_weight)

    @cached_property
    def weight(self) -> Tensor:
        """(N,) float64, normalised; 1 / N each for chains."""
        if self.chains:
            return torch.full((self.n,), 1 / self.n, dtype=torch.float64)
        return weights.normalise(self.log_weight)

    @property
    def ess(self) -> float:
        """The effective sample size of the weights, which knows nothing of families or chains."""
        return weights.ess(self.log_weight)

    @cached_property
    def descent(self) -> Genealogy:
        """The genealogy; where none was given, that of draws with no ancestors in common."""
        return Genealogy.start(self.n) if self.genealogy is None else self.genealogy

    @property
    def family(self) -> Tensor:
        """(N,) int64, which draws belong together: a number for each family, or for each chain."""
        if self.chains:
            return torch.arange(self.chains).repeat_interleave(self.n // self.chains)
        return self.descent.anchors[0].slot.long()

    @property
    def families(self) -> float:
        """The effective number of families: that of the weights, where every draw is one."""
        return 1 / spread(self.family, self.weight)

    def spread(self, value: Tensor) -> tuple[Tensor, str]:
        """The standard error of the weighted mean of `value` (N, ...), and why there is none, if so."""
        if self.doubt:
            return torch.full(value.shape[1:], math.nan, dtype=torch.float64), self.doubt
        if self.chains:
            found = self._by_chain(value)
            return found.se, found.reason
        return mean_se(value, self.log_weight, self.descent)

    def mean(self, value: Tensor, plain: Tensor | None = None) -> Estimate[Tensor]:
        """The weighted mean of `value` (N, ...), with its standard error where the draws can tell one.

        There is none where all draws of positive weight have the same value, nor where few values make a variance that
        may be infinite.

        Args:
            plain: (N, ...) what the two are looked for in, where `value` is that without what a control variate
                explains.
        """
        plain, weight = value if plain is None else plain, self.weight
        if self.chains:
            found = self._by_chain(value).doubted(self.doubt)
        else:
            se, reason = self.spread(value)
            alive = plain[weight > 0]
            if not reason and (same := alive.amax(0) == alive.amin(0)).any():
                se, reason = torch.where(same, math.nan, se), f"{SAME} 3 / ess = {3 / self.ess:.2g}"
            found = Estimate(torch.tensordot(weight, value, dims=1), se, reason, method="families")
        if not found.reason and (shape := wild(plain, weight)).any():
            se = torch.where(shape > 0, math.nan, found.se)
            found = replace(found, se=se, reason=wild_because(float(shape.max())))
        if found.reason and bool(found.se.isnan().all()):
            return replace(found, freedom=math.inf)
        return found if self.chains else replace(found, freedom=mean_freedom(value, self.log_weight, self.descent))

    def _by_chain(self, value: Tensor) -> Estimate[Tensor]:
        return chain_mean(value.view(self.chains, -1, *value.shape[1:]))

    def estimate(self, value: float, influence: Tensor, second: float = 0.0, **about: Any) -> Estimate[float]:
        """A value with the standard error of the weighted mean of its influence (N,): the delta method.

        The influence of draw i is the derivative of the value by the weight of i; an additive constant does not matter.
        Where it is the same for all draws there is a reason and no error: what they share says nothing of others.

        Args:
            second: the variance times the square of the number of draws that the term of second order adds.
            about: what else the estimate says of itself: `parts`, `bias`.
        """
        se, reason = self.spread(influence)
        if not reason and second == 0 and self.alike(influence):
            reason = ALIKE.format(self.called, self.called)
        error = math.nan if reason else math.hypot(float(se), math.sqrt(second) / self.families)
        return Estimate(value, error, reason, ess=self.ess, method="delta method", **about)

    def alike(self, value: Tensor) -> bool:
        """Whether a number (N,) is the same for all draws that have weight, but for rounding."""
        inside = value[self.weight > 0]
        return float(inside.max() - inside.min()) <= ROUNDING * float(inside.abs().max())

    def bootstrap(
        self, rng: Rng, value: Callable[[Tensor], Tensor], replicates: int = 400, **about: Any
    ) -> Estimate[float]:
        """A value with the standard deviation of what it is for resampled draws, families drawn as a whole.

        Args:
            rng: where the random numbers come from.
            value: maps weights (B, N), normalised, to values (B,).
            replicates: how often draws are resampled.
            about: as for `estimate`.
        """
        plain, reason = float(value(self.weight[None])[0]), self._untold()
        if reason:
            return Estimate(plain, math.nan, reason, ess=self.ess, method="bootstrap", **about)
        family, slot = torch.unique(self.family, return_inverse=True)
        count = len(family)
        drawn = rng.at("bootstrap").integers((replicates, count), count)
        times = torch.zeros(replicates, count, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(times))
        weight = times[:, slot] * self.weight
        weight = weight[weight.sum(1) > 0]
        found = value(weight / weight.sum(1, keepdim=True))
        # n / (n - 1): a resampled spread is that of the sample, with its mean known
        se = float(found.std()) * math.sqrt(count / (count - 1))
        return Estimate(plain, se, ess=self.ess, method="bootstrap", **about)

    def jackknife(self, value: Callable[[Tensor], Tensor], **about: Any) -> Estimate[float]:
        """A value with the standard error of leaving out one family at a time; what it is off by is taken away.

        With S_r the share of family r in the weight and v_r the value without it, the value is off by about
        sum_r (1 - S_r) (v_r - v), and its variance is sum_r ((1 - S_r) (v_r - v))^2 / (1 - 2 S_r + sum S^2). For equal
        shares these are Quenouille's and Tukey's; for a weighted mean the second is that of `spread`.

        Args:
            value: maps weights (B, N), normalised, to values (B,).
            about: as for `estimate`.

        References:
            Quenouille (1956), Notes on bias in estimation, Biometrika 43. Busing, Meijer & van der Leeden (1999),
            Delete-m jackknife for unequal m, Statistics and Computing 9(1).

        Example:
            >>> import torch
            >>> from motes.core import WeightedSample
            >>> sample = WeightedSample(torch.zeros(8, dtype=torch.float64))
            >>> x = torch.arange(8.0, dtype=torch.float64)
            >>> found = sample.jackknife(lambda w: w @ x.square() - (w @ x) ** 2)
            >>> round(found.value, 6) == round(float(x.var()), 6)
            True
        """
        plain, reason = float(value(self.weight[None])[0]), self._untold()
        family, slot = torch.unique(self.family, return_inverse=True)
        share = torch.zeros(len(family), dtype=torch.float64).index_add_(0, slot, self.weight)
        if not reason and float(share.max()) == 1:
            reason = f"one family has all the weight, so that without it there are no {self.called}"
        if reason:
            return Estimate(plain, math.nan, reason, ess=self.ess, method="jackknife", **about)
        found = []
        for out in torch.arange(len(family)).split(max(1, BLOCK // self.n)):
            weight = torch.where(slot == out[:, None], 0.0, self.weight)
            found.append(value(weight / weight.sum(1, keepdim=True)))
        change = (1 - share) * (torch.cat(found) - plain)
        keeps = 1 - 2 * share + share.square().sum()
        se = float((change.square() / keeps.clamp(min=1e-3)).sum().sqrt())
        return Estimate(plain - float(change.sum()), se, ess=self.ess, method="jackknife", **about)

    def multipliers(self, rng: Rng, influence: Tensor, replicates: int = 400) -> Tensor:
        """(B, p) errors that values with that influence (N, p) may have, together: a normal number for each family.

        Replicate b is sum_r xi_br D_r, with D_r the family's deviation that `spread` squares and adds up. Unlike a
        standard error each, it says how the errors of several values go together, as simultaneous intervals and tests
        need.

        Args:
            rng: where the random numbers come from.
            influence: as for `estimate`, a column a value.
            replicates: how many errors are drawn.

        Raises:
            MotesError: the draws tell no error.

        References:
            Chernozhukov, Chetverikov & Kato (2013), Gaussian approximations and multiplier bootstrap for maxima of sums
            of high-dimensional random vectors, Annals of Statistics 41(6).
        """
        if reason := self._untold():
            raise MotesError(f"multipliers need an error that the {self.called} can tell: {reason}")
        family, influence = self.family, influence.to(torch.float64)
        centred = self.weight[:, None] * (influence - self.weight @ influence)
        sign = torch.zeros_like(centred).index_add_(0, family, centred).sign()
        deviation = (sign * deviations(influence, self.weight, family).sqrt())[torch.unique(family)]
        return rng.at("multipliers").normal((replicates, len(deviation)), dtype=torch.float64) @ deviation

    def _untold(self) -> str:
        """Why nothing has an error bar, whatever it is; empty if something may have one."""
        if self.chains and not self.doubt:
            few = f"{self.chains} chains are too few to be taken as a whole each: {ENOUGH} or more tell an error"
            return few if self.chains < ENOUGH else ""
        return self.spread(torch.zeros(self.n, dtype=torch.float64))[1]
