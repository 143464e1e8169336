"""Entropy-MCMC: a companion that sees a smoothed law, and so the flat basins of the density."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference, cited
from motes.errors import MotesError
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, Wrapped, find_kernel, kernels
from motes.rng import Rng


@dataclass(frozen=True)
class Tethered(Wrapped):
    """The law p(x) exp(-|x - a|^2 / (2 eta)).

    Args:
        target: the law p.
        companion: (N, d) a, each particle's own.
        eta: the variance of the tether.
    """

    companion: Tensor
    eta: float

    def log_density(self, state: State) -> Tensor:
        away = (state["position"] - self.companion).square().sum(1)
        return self.target.log_density(state) - 0.5 / self.eta * away

    def gradient(self, state: State) -> Tensor:
        inside = self.target.log_density(state) > -torch.inf
        back = (self.companion - state["position"]) / self.eta
        return self.target.gradient(state) + torch.where(inside[:, None], back, 0.0)

    def part(self, index: Tensor) -> Tethered:
        return Tethered(self.target.part(index), self.companion[index], self.eta)

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        return self.target.hessian_vector(position, vector) - vector / self.eta


@kernels.register
@dataclass(frozen=True)
class EntropyMCMC(Kernel):
    """Entropy-MCMC: each particle x has a companion a, and the pair the law p(x) exp(-|x - a|^2 / (2 eta)).

    A sweep moves x by `kernel` for its law given a, then draws a from N(x, eta I), which is its law given x, exactly.
    So the law of x is p, untouched, and that of a is p smoothed by N(0, eta I), which prefers flat basins to narrow
    ones of the same height. States hold it under "companion" ("position" holds x). As exact and reversible as `kernel`;
    x mixes more slowly than by `kernel` alone, the more so the smaller eta is. The source takes unadjusted stochastic
    gradient steps of both in place of the kernel and the exact draw.

    References:
        Li & Zhang (2024), Entropy-MCMC: sampling from flat basins with ease, ICLR.

    Args:
        kernel: what moves x, or its name.
        eta: the variance of a around x, in the units of the parameters; above 0.

    Raises:
        ValueError: eta is not positive.
        MotesError: a kernel on whole numbers, or one for which all particles must have the same target.
    """

    kernel: Kernel | str = "random-walk"
    _: KW_ONLY
    eta: float = 1.0

    name: ClassVar[str] = "entropy"
    anywhere: ClassVar[bool] = False
    gradient: ClassVar[bool] = False
    references: ClassVar[tuple[Reference, ...]] = (cited("li2024", "the companions of the particles"),)

    def __post_init__(self) -> None:
        if not self.eta > 0:
            raise MotesError(f"eta must be above 0, not {self.eta}")
        base = find_kernel(self.kernel)
        if base.discrete or base.ensemble:
            raise MotesError(
                f"EntropyMCMC gives each particle its own law over real vectors, and {type(base).__name__} moves "
                + ("whole numbers" if base.discrete else "particles that share one law")
            )
        references = (*type(self).references, *base.references)
        learnt = {"kernel": base, "gradient": base.gradient, "exact": base.exact, "reversible": base.reversible}
        for key, value in {**learnt, "references": references}.items():  # the class speaks for the default alone
            object.__setattr__(self, key, value)

    @property
    def _base(self) -> Kernel:
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        return {"base": self._base.start(d, dtype)}

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        companion = self._draw(rng, state["position"])
        law = Tethered(target, companion, self.eta)
        return {**self._base.enter(rng.at("base"), law, state, parameters["base"]), "companion": companion}

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        return {"base": self._base.fit(parameters["base"], target, state, weight)}

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        return {"base": self._base.learn(parameters["base"], sweep, weight)}

    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        law = Tethered(target, state["companion"], self.eta)
        inner = {k: v for k, v in state.items() if k != "companion"}
        sweep = self._base.sweep(rng.at("base"), law, inner, parameters["base"])
        after = {**sweep.state, "companion": self._draw(rng, sweep.state["position"])}
        return Sweep(after, sweep.acceptance, sweep.evaluations, sweep.diverged, sweep.seen)

    def _draw(self, rng: Rng, x: Tensor) -> Tensor:
        return x + math.sqrt(self.eta) * rng.at("companion").normal(tuple(x.shape), dtype=x.dtype)

    def describe(self, parameters: Parameters) -> dict[str, float]:
        return self._base.describe(parameters["base"])
