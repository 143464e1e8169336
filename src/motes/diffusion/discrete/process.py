"""Noising processes on tokens: independent continuous-time Markov chains, one for each place of a sequence.

Tokens are (N, L) int64, 0..V-1, and -1 where a token is masked. The states of a place are the V tokens and, where the
process masks, the mask as state V. A process runs by a clock: its law from time s to time t is
exp((clock(t) - clock(s)) R) for one rate matrix R, and alpha(t) = exp(-clock(t)) falls from 1 as t goes from 0 to 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from motes.diffusion.discrete.draw import draw
from motes.errors import MotesError, ShapeError, check_name, check_positive
from motes.rng import Rng

MASK = -1
Schedule = Literal["linear", "cosine", "loglinear"]
SCHEDULES = ("linear", "cosine", "loglinear")
LEFT = 1e-3
"""What "loglinear" leaves of the data at t = 1."""
FIRMEST = 1e-13
"""The smallest alpha of which the clock is taken: what is nearer to 0 differs from the stationary law by less."""


class TokenProcess(ABC):
    """A noising process of tokens, and what Bayes' rule makes of it and of a model's prediction of the data.

    The prediction is log p(x_0 | x_t) for each place, (N, L, V). With it the law of one place at an earlier time, given
    all of x_t, is exact (`posterior`), since the noise of a place depends on its own data only; several places at once
    are not independent, which is what sampling them in parallel gets wrong.

    References:
        Austin, Johnson, Ho, Tarlow & van den Berg (2021), Structured Denoising Diffusion Models in Discrete
        State-Spaces, NeurIPS, section 3.
        Campbell, Benton, De Bortoli, Rainforth, Deligiannidis & Doucet (2022), A Continuous Time Framework for Discrete
        Denoising Models, NeurIPS, section 3 (the reverse rates).
    """

    vocabulary: int
    schedule: Schedule
    t_min: float
    t_max: float
    masks: ClassVar[bool] = False
    """Whether there is a mask."""

    @property
    def keeps(self) -> bool:
        """Whether a token that is not masked is that of the data."""
        return False

    @property
    def states(self) -> int:
        """The number of states of a place: V, and one more with a mask."""
        return self.vocabulary + self.masks

    @property
    @abstractmethod
    def matrix(self) -> Tensor:
        """R (S, S) float64: rates of the jumps from row to column at clock speed 1; rows sum to 0."""

    @abstractmethod
    def kernel(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """(..., S, S) float64: the law of the state at t, a column, given the state at s <= t, a row."""

    @property
    @abstractmethod
    def stationary(self) -> Tensor:
        """(S,) float64: the law of a place that sampling starts from."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """exp(-clock(t)), float64: with a mask or with uniform noise, the share of places never touched."""
        t = _t(t)
        if self.schedule == "cosine":
            return 1 - torch.cos(0.5 * math.pi * (1 - t))
        return 1 - t if self.schedule == "linear" else 1 - (1 - LEFT) * t

    def slope(self, t: Tensor | float) -> Tensor:
        """The derivative of alpha, float64; not positive."""
        t = _t(t)
        if self.schedule == "cosine":
            return -0.5 * math.pi * torch.sin(0.5 * math.pi * (1 - t))
        return torch.full_like(t, -1.0 if self.schedule == "linear" else LEFT - 1)

    def clock(self, t: Tensor | float) -> Tensor:
        """How far the chain has run at time t: -log(alpha), float64, 30 at most."""
        return -torch.log(self.alpha(t).clamp(min=FIRMEST))

    def speed(self, t: Tensor | float) -> Tensor:
        """The derivative of the clock, float64."""
        return -self.slope(t) / self.alpha(t).clamp(min=FIRMEST)

    def time(self, alpha: Tensor | float) -> Tensor:
        """The time at which alpha(t) is `alpha`, float64."""
        alpha = _t(alpha)
        if self.schedule == "cosine":
            return 1 - torch.acos(1 - alpha) * (2 / math.pi)
        return (1 - alpha) / (1.0 if self.schedule == "linear" else 1 - LEFT)

    def kept(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        """alpha(t) / alpha(s), float64: what is left at t of what there was at s <= t."""
        return self.alpha(t) / self.alpha(s).clamp(min=FIRMEST)

    def times(self, steps: int) -> Tensor:
        """The (steps + 1,) times of a sampler, float64, equally spaced from t_max down to t_min."""
        if steps < 1:
            raise MotesError(f"a sampler needs at least 1 step, not {steps}")
        return torch.linspace(self.t_max, self.t_min, steps + 1, dtype=torch.float64)

    def start(self, rng: Rng, shape: tuple[int, int]) -> Tensor:
        """Tokens (N, L) at t_max, each from the stationary law."""
        log_law = torch.log(self.stationary).expand(*shape, -1)
        return self.tokens(draw(rng.at("start"), log_law))

    def noise(self, rng: Rng, x0: Tensor, t: Tensor | float) -> Tensor:
        """Tokens (N, L) drawn from q(x_t | x_0); t is one time, or (N,), one for each sequence."""
        self.check(x0)
        kernel = self.kernel(torch.zeros_like(_t(t)), t).to(x0.device)
        rows = kernel[self.index(x0)] if kernel.ndim == 2 else kernel[torch.arange(len(x0))[:, None], self.index(x0)]
        return self.tokens(draw(rng.at("forward"), torch.log(rows)))

    def posterior(self, tokens: Tensor, log_p0: Tensor, t: float, s: float) -> Tensor:
        """(N, L, S) float64 log-probabilities of each place at time s < t, given all of x_t.

        The mean of q(x_s = j | x_t, x_0 = a) = K(0,s)[a,j] K(s,t)[j,x_t] / K(0,t)[a,x_t] over a from the prediction.
        """
        share = self._shares(tokens, log_p0, t)
        there = self.kernel(s, t).to(tokens.device).T[self.index(tokens)]  # (N, L, S): from j to x_t
        law = (share @ self.kernel(0.0, s).to(share)[: self.vocabulary]) * there
        return torch.log(law / law.sum(-1, keepdim=True))

    def ratios(self, tokens: Tensor, log_p0: Tensor, t: float) -> Tensor:
        """(N, L, S) float64: q_t(y) / q_t(x) of the sequences y that differ from x in one place, the concrete score.

        1 at y = x; 0 where the process cannot jump from y to x, if the prediction does not say it.
        """
        share = self._shares(tokens, log_p0, t)
        return share @ self.kernel(0.0, t).to(share)[: self.vocabulary]

    def reverse_rates(self, tokens: Tensor, log_p0: Tensor, t: float) -> Tensor:
        """(N, L, S) float64: the rates at which sampling jumps from x to y as t falls, 0 at y = x.

        The forward rate from y to x times q_t(y) / q_t(x).
        """
        index = self.index(tokens)
        rates = float(self.speed(t)) * self.matrix.to(tokens.device).T[index] * self.ratios(tokens, log_p0, t)
        return rates.scatter(-1, index[..., None], 0.0)

    def index(self, tokens: Tensor) -> Tensor:
        """The states (N, L), 0..S-1, of tokens: the mask is the last."""
        return torch.where(tokens < 0, self.states - 1, tokens) if self.masks else tokens

    def tokens(self, index: Tensor) -> Tensor:
        """The tokens (N, L) of states."""
        return torch.where(index == self.vocabulary, MASK, index) if self.masks else index

    def check(self, tokens: Tensor) -> None:
        """Raise a ShapeError unless these are (N, L) int64 tokens of this vocabulary."""
        if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64 or tokens.ndim != 2:
            raise ShapeError("tokens must be an int64 tensor (N, L)")
        least = MASK if self.masks else 0
        if tokens.numel() and not (int(tokens.min()) >= least and int(tokens.max()) < self.vocabulary):
            found = f"{int(tokens.min())}..{int(tokens.max())}"
            raise ShapeError(f"tokens must lie in {least}..{self.vocabulary - 1}, found {found}")

    def _shares(self, tokens: Tensor, log_p0: Tensor, t: float) -> Tensor:
        """(N, L, V) float64: p(x_0 = a | x_t) / K(0,t)[a, x_t], 0 where the process cannot lead from a to x_t."""
        reach = self.kernel(0.0, t).to(tokens.device)[: self.vocabulary].T[self.index(tokens)]
        p0 = log_p0.to(torch.float64).exp()
        return torch.where(reach > 0, p0 / reach.clamp(min=torch.finfo(torch.float64).tiny), 0.0)

    def _check(self) -> None:
        if self.vocabulary < 2:
            raise MotesError(f"a vocabulary has at least 2 tokens, not {self.vocabulary}")
        check_name("schedule", self.schedule, SCHEDULES)
        if not 0 <= self.t_min < self.t_max <= 1:
            raise MotesError(f"need 0 <= t_min < t_max <= 1, not t_min={self.t_min}, t_max={self.t_max}")


@dataclass(frozen=True)
class Masked(TokenProcess):
    """Each token is masked once and for all: at time t with probability 1 - alpha(t).

    A model's prediction at a masked place is a conditional of the data given the tokens that are left, whatever the
    time, and sampling fills places one by one or in parallel. All schedules have the same law of the order.

    Args:
        vocabulary: the number of tokens V, the mask not among them.
        schedule: alpha is "linear", 1 - t (a log-linear total rate); "cosine", 1 - cos(pi (1 - t) / 2); "loglinear",
            1 - 0.999 t, which leaves a thousandth.
        t_min, t_max: the last and the first time of a sampler, in [0, 1].

    References:
        Sahoo, Arriola, Schiff, Gokaslan, Marroquin, Chiu, Rush & Kuleshov (2024), Simple and Effective Masked Diffusion
        Language Models, NeurIPS, section 3.
        Shi, Han, Wang, Doucet & Titsias (2024), Simplified and Generalized Masked Diffusion for Discrete Data, NeurIPS
        (the schedules).
    """

    vocabulary: int
    _: KW_ONLY
    schedule: Schedule = "linear"
    t_min: float = 0.0
    t_max: float = 1.0
    masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()

    @property
    def keeps(self) -> bool:
        return True

    @property
    def matrix(self) -> Tensor:
        rate = -torch.eye(self.states, dtype=torch.float64)
        rate[:, -1] += 1
        return rate

    def kernel(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        keep = self.kept(s, t)[..., None, None]
        out = keep * torch.eye(self.states, dtype=torch.float64)
        out[..., -1] = 1 - keep[..., 0]
        out[..., -1, -1] = 1.0
        return out

    @property
    def stationary(self) -> Tensor:
        return torch.eye(self.states, dtype=torch.float64)[-1]

    def start(self, rng: Rng, shape: tuple[int, int]) -> Tensor:
        return torch.full(shape, MASK)

    def noise(self, rng: Rng, x0: Tensor, t: Tensor | float) -> Tensor:
        self.check(x0)
        keep = self.alpha(t).expand(len(x0))[:, None].expand(x0.shape)
        return torch.where(rng.at("forward").uniform(tuple(x0.shape)) < keep, x0.cpu(), MASK).to(x0.device)

    def posterior(self, tokens: Tensor, log_p0: Tensor, t: float, s: float) -> Tensor:
        unmasks = self.unmasks(t, s)
        out = torch.full((*tokens.shape, self.states), -math.inf, dtype=torch.float64, device=tokens.device)
        out.scatter_(-1, self.index(tokens)[..., None], 0.0)
        law = torch.cat(
            [log_p0.to(torch.float64) + _log(unmasks), out.new_full((*tokens.shape, 1), _log(1 - unmasks))], -1
        )
        return torch.where(tokens[..., None] < 0, law, out)

    def ratios(self, tokens: Tensor, log_p0: Tensor, t: float) -> Tensor:
        alpha = float(self.alpha(t))
        filled = log_p0.to(torch.float64).exp() * (alpha / (1 - alpha)) * (tokens[..., None] < 0)
        out = torch.cat([filled, filled.new_zeros((*tokens.shape, 1))], -1)
        return out.scatter(-1, self.index(tokens)[..., None], 1.0)

    def reverse_rates(self, tokens: Tensor, log_p0: Tensor, t: float) -> Tensor:
        rate = float(-self.slope(t) / (1 - self.alpha(t)))
        filled = rate * log_p0.to(torch.float64).exp() * (tokens[..., None] < 0)
        return torch.cat([filled, filled.new_zeros((*tokens.shape, 1))], -1)

    def unmasks(self, t: float, s: float) -> float:
        """The probability that a place that is masked at time t is not at time s < t."""
        before, after = float(self.alpha(t)), float(self.alpha(s))
        return min(1.0, (after - before) / (1 - before))


@dataclass(frozen=True)
class Uniform(TokenProcess):
    """Each token jumps to a uniformly drawn one at clock speed 1: at time t it is the data with probability alpha(t).

    Args:
        vocabulary: the number of tokens V.
        schedule: as for `Masked`. The clock of "linear" and "cosine" runs to infinity at t = 1; "loglinear" leaves a
            thousandth of the data there, of which a sampler knows nothing when it starts from uniform tokens.
        t_min, t_max: the last and the first time of a sampler, in [0, 1].

    References:
        Austin et al. (2021), NeurIPS, section 3.1; Lou, Meng & Ermon (2024), Discrete Diffusion Modeling by Estimating
        the Ratios of the Data Distribution, ICML.
    """

    vocabulary: int
    _: KW_ONLY
    schedule: Schedule = "loglinear"
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        self._check()

    @property
    def matrix(self) -> Tensor:
        return 1 / self.vocabulary - torch.eye(self.vocabulary, dtype=torch.float64)

    def kernel(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        keep = self.kept(s, t)[..., None, None]
        return keep * torch.eye(self.vocabulary, dtype=torch.float64) + (1 - keep) / self.vocabulary

    @property
    def stationary(self) -> Tensor:
        return torch.full((self.vocabulary,), 1 / self.vocabulary, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Rates(TokenProcess):
    """Each token jumps by a rate matrix of the user's: to tokens like it, to the mask from some more than others.

    Sampling starts from the stationary law, so what the data still weighs at t_max is an error of the start: at most
    about exp(-gap * clock(t_max)), with the spectral gap of the matrix.

    Args:
        rate: (V, V), or (V + 1, V + 1) with `mask`: rates of the jumps from row to column, any units; the diagonal is
            made here. There must be one stationary law.
        mask: whether the last state is the mask.
        schedule: as for `Masked`; the clock runs `stretch` times as fast.
        stretch: how far the chain runs while alpha falls by a factor e.
        t_min, t_max: the last and the first time of a sampler, in [0, 1].

    Raises:
        ShapeError, ValueError: the matrix is no matrix of rates, or has several stationary laws.
    """

    rate: Tensor
    _: KW_ONLY
    mask: bool = False
    schedule: Schedule = "loglinear"
    stretch: float = 1.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        rate = self.rate
        if not isinstance(rate, Tensor) or rate.ndim != 2 or rate.shape[0] != rate.shape[1]:
            raise ShapeError("rate must be a square tensor, from row to column")
        off = rate.to(torch.float64) * (1 - torch.eye(len(rate), dtype=torch.float64))
        if not bool(torch.isfinite(off).all()) or bool((off < 0).any()):
            raise MotesError("rates must be finite and not negative")
        check_positive(stretch=self.stretch)
        object.__setattr__(self, "rate", off)
        self._check()
        if torch.linalg.matrix_rank(self.matrix) < len(off) - 1:
            raise MotesError("the chain has several stationary laws: sampling would not know where to start")

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return len(self.rate) - self.mask

    @property
    def masks(self) -> bool:  # type: ignore[override]
        return self.mask

    @property
    def keeps(self) -> bool:
        away = self.rate.clone()
        away[: self.vocabulary, self.vocabulary :] = 0
        return self.mask and not bool(away.any())

    @property
    def matrix(self) -> Tensor:
        return self.stretch * (self.rate - torch.diag(self.rate.sum(1)))

    def kernel(self, s: Tensor | float, t: Tensor | float) -> Tensor:
        run = (self.clock(t) - self.clock(s))[..., None, None]
        out = torch.matrix_exp(run * self.matrix).clamp(min=0.0)
        return out / out.sum(-1, keepdim=True)

    @property
    def stationary(self) -> Tensor:
        both = torch.cat([self.matrix.T, torch.ones(1, self.states, dtype=torch.float64)])
        right = torch.zeros(self.states + 1, dtype=torch.float64)
        right[-1] = 1
        law = torch.linalg.lstsq(both, right[:, None]).solution[:, 0].clamp(min=0.0)
        law = torch.where(law < 1e-12, 0.0, law)  # what the solver leaves of a zero is no probability
        return law / law.sum()


def _t(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
