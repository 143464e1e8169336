"""Score-repellent Monte Carlo: any kernel, kept away from where the chain has been."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.adaptation.scale import fit_scale, pull, scaled
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, Wrapped, find_kernel, kernels
from motes.rng import Rng

OWN = ("history", "visits")


@dataclass(frozen=True)
class Repelled(Wrapped):
    """The law p(x) exp(-K tanh(w . s(x) / K)), with s the gradient of log p.

    Args:
        target: the law p.
        push: (N, d) w, each particle's own.
        bound: K, nats.
    """

    push: Tensor
    bound: float

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        state = self.target.evaluate(position, True)
        return {**state, "bend": self.bend(state)} if gradient else state

    def bend(self, state: State) -> Tensor:
        """(N, d) the gradient of w . s, by a Hessian-vector product."""
        inside = self.target.log_density(state) > -torch.inf
        return torch.where(inside[:, None], self.target.hessian_vector(state["position"], self.push), 0.0)

    def _tilt(self, state: State) -> Tensor:
        return torch.linalg.vecdot(self.push, self.target.gradient(state))

    def log_density(self, state: State) -> Tensor:
        tilt = self._tilt(state)
        if self.bound < math.inf:
            tilt = self.bound * torch.tanh(tilt / self.bound)
        return self.target.log_density(state) - tilt

    def gradient(self, state: State) -> Tensor:
        slope = 1 - torch.tanh(self._tilt(state) / self.bound).square()
        return self.target.gradient(state) - slope[:, None] * state["bend"]

    def part(self, index: Tensor) -> Repelled:
        return Repelled(self.target.part(index), self.push[index], self.bound)


@kernels.register
@dataclass(frozen=True)
class ScoreRepellent(Kernel):
    """Score-repellent Monte Carlo: another kernel on a law that is tilted away from where this chain has been.

    The score s(x) = grad log p(x) has mean zero under p. Each chain keeps the mean h of the scores that it has seen,
    and its next sweep moves it by `kernel` for the law p(x) exp(-K tanh(w . s(x) / K)), w = alpha F^-1 h, with F the
    covariance of the population's scores: a chain that has been too far on one side is pushed to the other. Then h
    takes the new score in, with weight 1 / (n + 1 + alpha): as if alpha scores of zero had been seen before, without
    which the first few of a chain would throw it from side to side. What a linear function of the score explains of f
    then varies less along the chain, by 1 / (1 + 2 alpha) for independent draws; for the mean of a Gaussian that is
    everything. The rest of f keeps its variance.

    Bias: averages along a chain converge with a bias of order alpha / n, and no single draw has law p: use it in long
    chains, not for weights. A kernel that mixes slowly gains little, since its scores forget before it does.

    The source has exp(-w . s(x)), which is no law where the score grows too fast beside log p: along a curved ridge
    as soon as w is longer than the ridge is wide, and where log p falls exponentially on one side only. A
    tilt of at most K nats always is one; as h goes to 0 the two are the same, and so is the variance in the end.

    References:
        Hu, Chen, Kim, Choi, Han & Eun (2026), Score-repellent Monte Carlo: toward efficient non-Markovian sampler with
        constant memory in general state spaces, ICML, arXiv:2604.22948 (there with F = 1,
        K infinite and the weight 1 / (n + 1)).

    Args:
        kernel: what moves the chains, or its name; one with gradients needs second derivatives of the log-density, of
            which one product with a vector is taken at each evaluation.
        alpha: how strongly the past repels, at least 0.
        bound: K, the most that a law is tilted, nats; `math.inf` is the source's tilt.
        scale: "dense", "diagonal" or "auto" (see `kernels.scale.fit_scale`).

    Raises:
        ValueError: alpha is negative, or bound not positive.
        MotesError: a kernel on whole numbers, or one for which all particles must have the same target.
    """

    kernel: Kernel | str = "random-walk"
    _: KW_ONLY
    alpha: float = 5.0
    bound: float = 3.0
    scale: str = "auto"

    name: ClassVar[str] = "score-repellent"
    anywhere: ClassVar[bool] = False
    gradient: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("hu2026", "the repellence of the kernel"),)

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.bound > 0):
            raise MotesError(f"ScoreRepellent needs alpha >= 0 and bound > 0, not {self.alpha} and {self.bound}")
        base = find_kernel(self.kernel)
        if base.discrete or base.ensemble:
            raise MotesError(
                f"ScoreRepellent gives each chain its own law over real vectors, and {type(base).__name__} moves "
                + ("whole numbers" if base.discrete else "chains that share one law")
            )
        object.__setattr__(self, "kernel", base)
        object.__setattr__(self, "references", (*type(self).references, *base.references))

    @property
    def _base(self) -> Kernel:
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"spread": torch.ones(2, d, dtype=dtype), "base": self._base.start(d, dtype)}

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        x = state["position"]
        state = self._base.enter(rng, target, state, parameters["base"])
        return {**state, "history": torch.zeros_like(x), "visits": torch.zeros(len(x), dtype=x.dtype)}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        spread = fit_scale(target.gradient(state), weight, self.scale, _inverse(parameters["spread"]))
        return {"spread": _inverse(spread), "base": self._base.fit(parameters["base"], target, state, weight)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return {**parameters, "base": self._base.learn(parameters["base"], sweep, weight)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        history, visits, spread = state["history"], state["visits"], parameters["spread"]
        law = Repelled(target, self.alpha * scaled(pull(history, spread), spread), self.bound)
        inner = {k: v for k, v in state.items() if k not in OWN}
        if self._base.gradient:
            inner["bend"] = law.bend(inner)  # for the new w
        sweep = self._base.sweep(rng.at("base"), law, inner, parameters["base"])
        after = {k: v for k, v in sweep.state.items() if k != "bend"}
        visits = visits + 1
        history = history + (target.gradient(after) - history) / (visits + self.alpha)[:, None]
        evaluations = sweep.evaluations * (2 if self._base.gradient else 1) + self._base.gradient
        after |= {"history": history, "visits": visits}
        return Sweep(after, sweep.acceptance, evaluations, sweep.diverged, sweep.seen)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return self._base.describe(parameters["base"])


def _inverse(factor: Tensor) -> Tensor:
    """The factors P with P P^T = (S S^T)^-1, of factors S (2, d, d) or (2, d)."""
    return factor.reciprocal() if factor.ndim == 2 else torch.linalg.inv(factor).mT
