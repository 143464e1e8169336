"""How the steps of a composition of models move, and three rules for the weight of a step.

The target at time t is gamma_t(x) = prod_i q_{i,t}(x)^{w_i} with W = sum_i w_i. A step from x at time t to y at the
earlier time s is drawn from a normal law F(y | x), and its weight is

    gamma_s(y) B(x | y) / (gamma_t(x) F(y | x))

for any backward kernel B; the process's own noising kernel N is the natural one. The ratio of gammas is known
("energy"), or follows from the models' transitions ("transition": q_s(y) N(x | y) = q_t(x) p(y | x) by Bayes' rule), or
the whole is the limit of small steps ("rate").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from motes.diffusion.composing.crosswise import rows
from motes.diffusion.processes.process import Process


@dataclass(frozen=True)
class Grid:
    """The numbers of each step, float64.

    Attributes:
        process, times: the process, and the falling times (K + 1,).
        exponents: (K + 1, M), of each model at each time.
        churn: (K,) the noise variance of a step relative to the process's own.
        flow: (K,) how much of the score's drift without noise, g^2 / 2 score, a step has.
    """

    process: Process
    times: Tensor
    exponents: Tensor
    churn: Tensor
    flow: Tensor

    @property
    def steps(self) -> int:
        """The number of steps K."""
        return len(self.times) - 1

    def bridge(self, k: int, ahead: int = 1) -> tuple[float, float]:
        """a and v of the noising kernel N(x_t; a x_s, v) from time s = times[k + ahead] to t = times[k]."""
        t, s = self.times[k], self.times[k + ahead]
        a = self.process.alpha(t) / self.process.alpha(s)
        return float(a), float(self.process.sigma(t) ** 2 - (a * self.process.sigma(s)) ** 2)

    def combined(self, k: int, scores: Tensor) -> Tensor:
        """sum_i w_i s_i, like a state, of scores (N, M, ...)."""
        return torch.einsum("m,nm...->n...", self.exponents[k].to(scores), scores)

    def squares(self, k: int, scores: Tensor, by: Tensor | None = None) -> Tensor:
        """(N,) sum_i w_i |s_i|^2, each times `by` (N, M)."""
        square = scores.cpu().to(torch.float64).flatten(2).square().sum(2)
        return square @ self.exponents[k] if by is None else (square * by) @ self.exponents[k]

    def rate(self, k: int, scores: Tensor) -> Tensor:
        """(N,) the log-weight a unit of time: (W - 1) div(f x) + g^2 / 2 (|sum_i w_i s_i|^2 - sum_i w_i |s_i|^2)."""
        t, d = self.times[k], scores[0, 0].numel()
        f, g2 = float(self.process.drift(t)), float(self.process.diffusion(t)) ** 2
        gap = dot(mixed := self.combined(k, scores), mixed) - self.squares(k, scores)
        return (float(self.exponents[k].sum()) - 1) * d * f + 0.5 * g2 * gap


@dataclass(frozen=True)
class CompositionMove:
    """The normal law of a step: mean like the state, and the standard deviation, one for all or (N,)."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Ratio:
    """The log-ratio gamma_s(y) / gamma_t(x) as a quadratic in y - x / a, from the models' transitions at x.

    Model i moves by N(x / a + v s_i / a, (v / a^2) (1 - v c_i)): Tweedie's formula, exact in the mean whatever the
    data, and with the curvature c_i, minus the mean second derivative of log q_i, right in the mean variance too.

    Attributes:
        keep, added: a and v of the noising kernel.
        exponent: W.
        precision: (N,) sum_i w_i / v_i.
        constant: (N,) what does not depend on the states.
        slope: like the state, sum_i w_i b_i / v_i with b_i the shift of model i's mean.
        square: (N,) sum_i w_i |b_i|^2 / v_i.
    """

    keep: float
    added: float
    exponent: float
    precision: Tensor
    constant: Tensor
    slope: Tensor
    square: Tensor

    @classmethod
    def at(cls, grid: Grid, k: int, scores: Tensor, curvature: Tensor, ahead: int = 1) -> Ratio:
        """The ratio of a step over `ahead` intervals of the grid, of scores (N, M, ...) and curvatures (N, M)."""
        a, added = grid.bridge(k, ahead)
        w = grid.exponents[k]
        exponent = float(w.sum())
        least = float(grid.process.sigma(grid.times[k])) ** 2  # log q_t is nowhere more curved than its noise
        curvature = curvature.clamp(0, 1 / least)
        lost = (w / (1 - added * curvature)).sum(1) <= exponent - 1  # the step would have no normal law
        if bool(lost.any()):
            mean = curvature @ w / exponent if exponent > 0 else torch.zeros(len(curvature), dtype=torch.float64)
            curvature = torch.where(lost[:, None], mean[:, None].clamp(0, 1 / least), curvature)
        each = added / a**2 * (1 - added * curvature)  # (N, M) the variances v_i
        d = scores[0, 0].numel()
        by = added / a / each
        slope = torch.einsum("nm,nm...->n...", (w * by).to(scores), scores)
        square = grid.squares(k, scores, (added / a) ** 2 / each)
        constant = 0.5 * d * (w * torch.log(added / each)).sum(1)
        return cls(a, added, exponent, (w / each).sum(1), constant, slope, square)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) the log-ratio, nats, of states y against states x."""
        gap = y - x / self.keep
        bend = self.precision - self.exponent * self.keep**2 / self.added
        return -0.5 * bend * dot(gap, gap) + dot(gap, self.slope) - 0.5 * self.square + self.constant

    @property
    def power(self) -> Tensor:
        """(N,) the precision of the step that the transitions make of a composition."""
        return self.precision + (1 - self.exponent) * self.keep**2 / self.added

    def total(self) -> Tensor:
        """(N,) the log of the integral over y of the ratio times the noising kernel N(x | y), nats."""
        d = self.slope[0].numel()
        mean = 0.5 * (dot(self.slope, self.slope) / self.power - self.square)
        return mean + self.constant - 0.5 * d * torch.log(self.power * self.added)

    def move(self, x: Tensor) -> CompositionMove:
        """The step that the transitions make of a composition, N(x | y)^(1 - W) prod_i p_i(y | x)^{w_i} in y."""
        return CompositionMove(x / self.keep + self.slope / rows(self.power, x), self.power**-0.5)


def tempered(grid: Grid, k: int, x: Tensor, score: Tensor, curvature: Tensor) -> CompositionMove:
    """A step by the combined score: the linear part exact, the score held.

    With churn and flow 1 / W it is Tweedie's formula for y given x where x = a y + noise of variance v / W: the law
    sigma^2 / W of noise under a power W is kept by that; then the curvature (M,) gives the variance of y, too.
    """
    a, added = grid.bridge(k)
    churn, flow = float(grid.churn[k]), float(grid.flow[k])
    variance = churn * added / a**2
    if churn == flow:
        most = float(grid.exponents[k].sum()) / float(grid.process.sigma(grid.times[k])) ** 2
        variance *= 1 - churn * added * float((grid.exponents[k] @ curvature).clamp(0, most))
    return CompositionMove(
        x / a + 0.5 * (flow + churn) * added / a * score, torch.tensor(math.sqrt(variance), dtype=torch.float64)
    )


def euler(grid: Grid, k: int, x: Tensor, score: Tensor) -> CompositionMove:
    """Euler and Maruyama's step of -f x + g^2 (flow + churn) / 2 score with noise sqrt(churn) g."""
    t = grid.times[k]
    dt = float(t - grid.times[k + 1])
    f, g = float(grid.process.drift(t)), float(grid.process.diffusion(t))
    churn, flow = float(grid.churn[k]), float(grid.flow[k])
    mean = x + dt * (0.5 * (flow + churn) * g**2 * score - f * x)
    return CompositionMove(mean, torch.tensor(math.sqrt(churn * dt) * g, dtype=torch.float64))


def backward_over_forward(grid: Grid, k: int, x: Tensor, y: Tensor, score: Tensor, xi: Tensor, std: Tensor) -> Tensor:
    """(N,) log B(x | y) - log F(y | x), nats, for y drawn from F with the standard normal xi.

    B is the time reversal of the step's equation where its law is gamma: drift f y + g^2 (churn - flow) / 2 score(y).

    Args:
        grid, k: the step.
        x, y, xi: states before and after, and the noise that was drawn.
        score: the combined score at y and its time.
        std: the standard deviation of F, one for all or (N,).
    """
    a, added = grid.bridge(k)
    churn, flow = float(grid.churn[k]), float(grid.flow[k])
    mean = a * y
    if churn != flow:
        mean = mean + 0.5 * (churn - flow) * added * score
    gap, variance = x - mean, churn * added
    d = x[0].numel()
    return 0.5 * (dot(xi, xi) - dot(gap, gap) / variance) + d * (torch.log(std) - 0.5 * math.log(variance))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(N,) float64 inner products of two states (N, ...)."""
    return (a.to(torch.float64) * b.to(torch.float64)).flatten(1).sum(1).cpu()
