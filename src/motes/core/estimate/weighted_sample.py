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
from motes.core.estimate.variance import deviations, freedom_of, mean_se
from motes.core.history.genealogy import Genealogy, spread
from motes.errors import MotesError, ShapeError, WrongType, check_whole
from motes.rng import Rng

ROUNDING = 1e-12
ALIKE = "the number is the same for all {}, so their spread says nothing; {} not drawn have at most about 3 / ess"
Tried = tuple[Tensor, float, float, float]
"""What other weights make of a number: its values, their standard error, its degrees of freedom, what it is off by."""
INFINITE = "the number is infinite or none for some of the weights that are tried, so that these have no spread"
BLOCK = 1 << 22
"""Weights that a jackknife holds at once."""


def _level(value: Tensor) -> bool:
    """Whether numbers (N,) are the same, but for rounding."""
    return float(value.max() - value.min()) <= ROUNDING * float(value.abs().max())


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

    Raises:
        WrongType: the log-weights are no tensor, or the chains no whole number.
        ShapeError: the log-weights are no float64 vector, or genealogy or chains are those of another number of draws.
        NanLogPotential: a log-weight is NaN or +inf.
        MotesError: draws of chains have different weights.
    """

    log_weight: Tensor
    _: KW_ONLY
    genealogy: Genealogy | None = None
    chains: int = 0
    doubt: str = ""
    called: str = "draws"

    def __post_init__(self) -> None:
        if not isinstance(self.log_weight, Tensor):
            kind = type(self.log_weight).__name__
            raise WrongType(f"the log-weights of {self.called} must be a float64 tensor (N,), not {kind}")
        weights.check_log_weight(self.log_weight, None, self.called)
        if self.genealogy is not None and self.genealogy.n != self.n:
            raise ShapeError(
                f"{self.n} {self.called} and a genealogy of {self.genealogy.n} particles: give that of the run which "
                "drew them, or none where they have no ancestors in common"
            )
        if isinstance(self.chains, bool) or not isinstance(self.chains, int) or self.chains < 0:
            raise WrongType(f"chains, their number, must be a whole number of at least 0, not {self.chains!r}")
        if self.chains and self.n % self.chains:
            raise ShapeError(
                f"{self.n} {self.called} are not {self.chains} chains of equal length: give as many of each"
            )
        if self.chains and float(self.log_weight.max()) > float(self.log_weight.min()):
            raise MotesError(f"{self.called} of chains must all have the same weight; with weights, leave out `chains`")

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

    def _kinships(self) -> list[Tensor]:
        """(N,) int64 each, which draws belong together: by chain, or by the older and by the younger ancestors."""
        if self.chains:
            return [torch.arange(self.chains).repeat_interleave(self.n // self.chains)]
        return [anchor.slot.long() for anchor in self.descent.anchors]

    @property
    def family(self) -> Tensor:
        """(N,) int64, which draws belong together: a number for each family, or for each chain."""
        return self._kinships()[0]

    @property
    def families(self) -> float:
        """The effective number of families: that of the weights, where every draw is one."""
        return 1 / spread(self.family, self.weight)

    def _told(self, value: Tensor) -> Estimate[Tensor]:
        """The weighted mean of `value` (N, ...), with its error as families or chains tell it, whatever the values."""
        if not isinstance(value, Tensor) or value.shape[:1] != (self.n,):
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"values of {self.n} {self.called} must be a tensor ({self.n}, ...), not {what}")
        value = value.to(torch.float64)
        if self.chains:
            return chain_mean(value.reshape(self.chains, -1, *value.shape[1:])).doubted(self.doubt)
        mean = torch.tensordot(self.weight, value, dims=1)
        if self.doubt:
            return Estimate(mean, torch.full_like(mean, math.nan), self.doubt, method="families")
        return Estimate(mean, *mean_se(value, self.log_weight, self.descent), method="families")

    def spread(self, value: Tensor) -> tuple[Tensor, str]:
        """The standard error of the weighted mean of `value` (N, ...), and why there is none, if so."""
        found = self._told(value)
        return found.se, found.reason

    def mean(self, value: Tensor, plain: Tensor | None = None) -> Estimate[Tensor]:
        """The weighted mean of `value` (N, ...), with its standard error where the draws can tell one.

        There is none where all draws of positive weight have the same value, nor where few values make a variance that
        may be infinite.

        Args:
            plain: (N, ...) what the two are looked for in, where `value` is that without what a control variate
                explains.
        """
        found, plain, alive = self._told(value), value if plain is None else plain, self.weight > 0
        if not self.chains and not found.reason and (same := plain[alive].amax(0) == plain[alive].amin(0)).any():
            reason = f"{SAME} 3 / ess = {3 / self.ess:.2g}"
            found = replace(found, se=torch.where(same, math.nan, found.se), reason=reason)
        if not found.reason and (shape := wild(plain, self.weight)).any():
            se = torch.where(shape > 0, math.nan, found.se)
            found = replace(found, se=se, reason=wild_because(float(shape.max())))
        return replace(found, freedom=math.inf) if found.reason and bool(found.se.isnan().all()) else found

    def estimate(self, value: float, influence: Tensor, second: float = 0.0, **about: Any) -> Estimate[float]:
        """A value with the standard error of the weighted mean of its influence (N,): the delta method.

        The influence of draw i is the derivative of the value by the weight of i; an additive constant does not matter.
        Where it is the same for all draws there is a reason and no error: what they share says nothing of others.

        Args:
            second: the variance times the square of the number of draws that the term of second order adds.
            about: what else the estimate says of itself: `parts`, `bias`.
        """
        found = self._told(influence)
        reason, se, freedom = found.reason, math.nan, math.inf
        if not reason and second == 0 and self.alike(influence):
            reason = ALIKE.format(self.called, self.called)
        if not reason:
            se, freedom = math.hypot(float(found.se), math.sqrt(second) / self.families), found.freedom
        return Estimate(value, se, reason, freedom, ess=self.ess, method="delta method", **about)

    def alike(self, value: Tensor) -> bool:
        """Whether a number (N,) is the same for all draws that have weight, but for rounding."""
        return _level(value[self.weight > 0])

    def bootstrap(
        self, rng: Rng, value: Callable[[Tensor], Tensor], replicates: int = 400, **about: Any
    ) -> Estimate[float]:
        """A value with the standard deviation of what it is for resampled draws, families drawn as a whole.

        Older and younger families are drawn in turn, and the larger standard deviation counts.

        Args:
            rng: where the random numbers come from.
            value: maps weights (B, N), normalised, to values (B,).
            replicates: how often draws are resampled.
            about: as for `estimate`.

        Raises:
            MotesError: fewer than two replicates.
        """
        check_whole(2, replicates=replicates)

        def drawn(_: float, slot: Tensor, which: int) -> Tried:
            count, size = int(slot.max()) + 1, spread(slot, self.weight)
            family = rng.at("bootstrap", inner=which).integers((replicates, count), count)
            times = torch.zeros(replicates, count, dtype=torch.float64)
            weight = times.scatter_add_(1, family, torch.ones_like(times))[:, slot] * self.weight
            weight = weight[weight.sum(1) > 0]
            found = value(weight / weight.sum(1, keepdim=True))
            # 1 - size: a resampled spread is that of the sample, with its mean known
            return found, float(found.std()) / math.sqrt(1 - size), math.inf, 0.0

        return self._tried(value, drawn, "bootstrap", about)

    def jackknife(self, value: Callable[[Tensor], Tensor], **about: Any) -> Estimate[float]:
        """A value with the standard error of leaving out one family at a time; what it is off by is taken away.

        With S_r the share of family r in the weight and v_r the value without it, the value is off by about
        sum_r (1 - S_r) (v_r - v), and its variance is sum_r ((1 - S_r) (v_r - v))^2 / (1 - 2 S_r + sum S^2). For equal
        shares these are Quenouille's and Tukey's; for a weighted mean the second is that of `spread`. Older and
        younger families are left out in turn, and those count, for the bias too, that make the larger error.

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

        def left_out(plain: float, slot: Tensor, _: int) -> Tried:
            share, found = torch.bincount(slot, weights=self.weight), []
            for out in torch.arange(len(share)).split(max(1, BLOCK // self.n)):
                weight = torch.where(slot == out[:, None], 0.0, self.weight)
                found.append(value(weight / weight.sum(1, keepdim=True)))
            change, size = (1 - share) * (torch.cat(found) - plain), float(share.square().sum())
            square = change.square() / (1 - 2 * share + size)
            return torch.cat(found), float(square.sum().sqrt()), freedom_of(square, 1 / size), float(change.sum())

        return self._tried(value, left_out, "jackknife", about)

    def _tried(
        self,
        value: Callable[[Tensor], Tensor],
        once: Callable[[float, Tensor, int], Tried],
        method: str,
        about: dict[str, Any],
    ) -> Estimate[float]:
        """A value with the largest error that other weights tell, tried for each of the kinships by `once`."""
        plain, reason = float(value(self.weight[None])[0]), self._untold()
        se, freedom, off = math.nan, math.inf, 0.0
        if not reason:
            slots = [torch.unique(kin, return_inverse=True)[1] for kin in self._kinships()]
            found = [once(plain, slot, which) for which, slot in enumerate(slots)]
            every = torch.cat([each for each, *_ in found])
            if not every.isfinite().all():
                reason = INFINITE
            elif _level(every):
                reason = ALIKE.format(self.called, self.called)
            else:
                _, se, freedom, off = max(found, key=lambda tried: tried[1])
                freedom = max(min(freedom, self.families - 1), 1.0)
        return Estimate(plain - off, se, reason, freedom, ess=self.ess, method=method, **about)

    def multipliers(self, rng: Rng, influence: Tensor, replicates: int = 400) -> Tensor:
        """(B, p) errors that values with that influence (N, p) may have, together: a normal number for each family.

        Replicate b is sum_r xi_br D_r, with D_r the family's deviation that `spread` squares and adds up, of older and
        of younger families alike, and scaled so that the standard deviation of each column is the error that `spread`
        states. Unlike a standard error each, it says how the errors of several values go together, as simultaneous
        intervals and tests need.

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
        if influence.ndim != 2:
            raise ShapeError(f"the influence must be (N, p), a column a value, not {tuple(influence.shape)}")
        se, reason = self.spread(influence)
        if reason := self._untold() or reason:
            raise MotesError(f"multipliers need an error that the {self.called} can tell: {reason}")
        influence, found = influence.to(torch.float64), []
        centred = self.weight[:, None] * (influence - self.weight @ influence)
        for family in self._kinships():
            sign = torch.zeros_like(centred).index_add_(0, family, centred).sign()
            found.append((sign * deviations(influence, self.weight, family).sqrt())[torch.unique(family)])
        deviation = torch.cat(found)
        size = deviation.square().sum(0).sqrt()
        deviation = torch.where(size > 0, deviation * (se / size), se / math.sqrt(len(deviation)))
        return rng.at("multipliers").normal((replicates, len(deviation)), dtype=torch.float64) @ deviation

    def _untold(self) -> str:
        """Why nothing has an error bar, whatever it is; empty if something may have one."""
        if self.chains and not self.doubt:
            few = f"{self.chains} chains are too few to be taken as a whole each: {ENOUGH} or more tell an error"
            return few if self.chains < ENOUGH else ""
        return self.spread(torch.zeros(self.n, dtype=torch.float64))[1]
