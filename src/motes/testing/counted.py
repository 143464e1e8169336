"""How often a kernel asks its target."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from motes.kernels import State, Target
from motes.kernels.kernel import Wrapped


@dataclass(frozen=True)
class Counted(Wrapped):
    """A target that counts the points at which it is evaluated, for its parts too."""

    counts: list[int] = field(default_factory=list)

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        self.counts.append(len(position))
        return super().evaluate(position, gradient)

    def log_density(self, state: State) -> Tensor:
        return self.target.log_density(state)

    def gradient(self, state: State) -> Tensor:
        return self.target.gradient(state)

    def part(self, index: Tensor) -> Target:
        return Counted(self.target.part(index), self.counts)

    def emulated(self, state: State) -> Tensor:
        return self.target.emulated(state)

    def from_emulated(self, value: Tensor, spread: Tensor) -> Tensor:
        return self.target.from_emulated(value, spread)

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        return self.target.hessian_vector(position, vector)
