"""What a Markov kernel is: something that moves every particle and leaves a law invariant.

A kernel holds knobs only. What it has learnt (a step size, the shape of the population) is a dict of numbers and
tensors, its *parameters*, that its caller carries along and saves; what belongs to the particles is a *state*: the
position, what the target evaluated there, and what the kernel itself carries on (a momentum).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from motes.core.cite import Reference
from motes.core.registry import Registry
from motes.errors import MotesError
from motes.kernels.tally import Tally
from motes.rng import Rng

State = dict[str, Tensor]
"""Tensors (N, ...): "position" (N, d) and whatever a `Target` evaluated there, so nothing is evaluated twice."""

Parameters = dict[str, Any]
"""What a kernel has learnt: numbers and tensors that belong to the whole population."""


class Target(ABC):
    """A law on R^d, or on whole numbers, known by its log-density up to a constant."""

    @property
    def levels(self) -> int | None:
        """Where positions are whole numbers 0..levels-1, how many there are; None on R^d."""
        return None

    def tally(self) -> Tally | None:
        """The count of trial points at which the law was undefined; None where nothing is counted."""
        return None

    def told(self, trials: float) -> dict[str, float]:
        """What the trace shows of the `tally` after `trials` moves of one particle, see `Tally.told`."""
        tally = self.tally()
        return {} if tally is None else tally.told(trials)

    @abstractmethod
    def evaluate(self, position: Tensor, gradient: bool) -> State:
        """The state at trial points `position` (N, d), with what `gradient` needs if asked; all that takes long.

        Where the law is undefined (not a number, an error of the user's function) its log-density is -inf, and the
        `tally` counts it: a trial point that is not accepted is a divergence, and no error.
        """

    @abstractmethod
    def log_density(self, state: State) -> Tensor:
        """(N,) nats, -inf outside of the support, never NaN."""

    @abstractmethod
    def gradient(self, state: State) -> Tensor:
        """(N, d) the gradient of the log-density; finite everywhere (0 where the log-density is -inf).

        On whole numbers (N, d, levels): one number for each level of each coordinate, whose differences estimate to
        first order what a change of that coordinate does to the log-density.
        """

    def part(self, index: Tensor) -> Target:
        """The target of the particles `index` (M,) int64 alone: itself, unless each particle has its own."""
        return self

    def emulated(self, state: State) -> Tensor:
        """(N, m) smooth quantities that an emulator learns, -inf or NaN where they are unknown: the log-density."""
        return self.log_density(state)[:, None]

    def from_emulated(self, value: Tensor, spread: Tensor) -> Tensor:
        """(N,) a finite stand-in for the log-density, from predictions (N, m) that are off by `spread` (m,)."""
        return value[:, 0]

    def hessian_vector(self, position: Tensor, vector: Tensor) -> Tensor:
        """(N, d) the Hessian of the log-density at `position` (N, d) times `vector` (N, d)."""
        raise MotesError(
            f"{type(self).__name__} has no second derivatives: give it a `hessian_vector(position, vector)`, or use a "
            "kernel that needs none"
        )


@dataclass(frozen=True)
class Wrapped(Target):
    """A target that asks another one and changes what it says.

    What a change would make wrong (second derivatives, what is emulated) is not passed on.
    """

    target: Target

    @property
    def levels(self) -> int | None:
        return self.target.levels

    def tally(self) -> Tally | None:
        return self.target.tally()

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        return self.target.evaluate(position, gradient)


@dataclass(frozen=True)
class Sweep:
    """What one sweep did.

    Attributes:
        state: the particles after it.
        acceptance: (N,) the probability with which each proposal was accepted (1 where nothing is ever rejected).
        evaluations: density evaluations (with their gradients, if the kernel needs them), mean over the particles.
        diverged: (N,) whether the move had to be given up (a trajectory ran off); None for kernels that cannot.
        seen: what the kernel's own `learn` wants to know of this sweep, tensors (N, ...).
    """

    state: State
    acceptance: Tensor
    evaluations: float
    diverged: Tensor | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)


class Kernel(ABC):
    """A Markov kernel whose knobs need no tuning: it learns from the population that it moves.

    `fit` and `learn` make the next parameters from what is known before and after a sweep; `sweep` leaves the target
    invariant for any fixed parameters. Because the parameters come from the same particles that are then moved,
    expectations under an adapted kernel carry a bias of order 1/N; with parameters that were found by an earlier run,
    or frozen after a warm-up, there is none.
    """

    name: ClassVar[str]
    gradient: ClassVar[bool]
    """Whether `sweep` needs the gradient of the log-density."""
    references: ClassVar[tuple[Reference, ...]]
    discrete: ClassVar[bool] = False
    """Whether positions are whole numbers 0..target.levels-1 instead of points of R^d."""
    exact: ClassVar[bool] = True
    """Whether the target is invariant; if not, the docstring says which bias there is."""
    reversible: ClassVar[bool] = True
    """Whether (before, after) and (after, before) have the same law in equilibrium, for the positions alone."""
    ensemble: ClassVar[bool] = False
    """Whether a particle's move looks at where the others are (then all must have the same target)."""

    anywhere: ClassVar[bool] = True
    """Whether it works in any coordinates; if not, it knows coordinates by place, or asks more of a target."""

    @property
    def one_target(self) -> bool:
        """Whether it leaves one law invariant only, which the user had in mind, and not whatever it is asked for."""
        return False

    @abstractmethod
    def start(self, d: int, dtype: torch.dtype) -> Parameters:
        """The parameters before anything was seen, for dimension `d`: numbers, tensors, and dicts of them."""

    def enter(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> State:
        """The state with what this kernel carries from sweep to sweep beside the position, (N, ...) under own keys.

        Called before the first sweep on particles that are new to the kernel. What it adds must have its stationary
        law given the position, so that `sweep` leaves the law of both invariant.
        """
        return state

    def fit(self, parameters: Parameters, target: Target, state: State, weight: Tensor) -> Parameters:
        """Learn scales from a population: `state` as `target` evaluated it, normalised weights (N,)."""
        return parameters

    def learn(self, parameters: Parameters, sweep: Sweep, weight: Tensor) -> Parameters:
        """Learn the step size (and the like) from what a sweep under `parameters` did; normalised weights (N,)."""
        return parameters

    @abstractmethod
    def sweep(self, rng: Rng, target: Target, state: State, parameters: Parameters) -> Sweep:
        """Move every particle once. `state` must have come from `target.evaluate` with what this kernel needs."""

    def describe(self, parameters: Parameters) -> dict[str, float]:
        """What the trace shows of the parameters: the step size, if there is one."""
        return {k: parameters[k] for k in ("step_size",) if k in parameters}


kernels: Registry[type[Kernel]] = Registry("kernel", "motes.kernels", named=lambda kernel: kernel.name)
"""Every kernel by its name."""


def find_kernel(kernel: str | Kernel, legal: Iterable[str] | None = None) -> Kernel:
    """The kernel called `kernel`, with its default knobs; or `kernel` itself.

    Args:
        kernel: a kernel, its name, or the name of its class; case, hyphens and underscores do not matter.
        legal: the names that an error lists, where not all kernels would do.

    Raises:
        UnknownName: there is no such kernel.
    """
    return kernel if isinstance(kernel, Kernel) else kernels.find(kernel, legal)()


def select(accept: Tensor, proposal: State, state: State) -> State:
    """The proposal where `accept` (N,) is true, the old state elsewhere (of what the proposal has)."""
    return {k: torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, state[k]) for k, new in proposal.items()}


def mean_acceptance(sweep: Sweep, weight: Tensor) -> float:
    """The weighted mean acceptance of a sweep."""
    return float(weight @ sweep.acceptance.to(weight))


def accepted(rng: Rng, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The Metropolis decision: acceptance probabilities min(1, exp(log_ratio)) (N,) and which proposals are taken."""
    # NaN is -inf - -inf: a particle without density (and so without weight) that would stay without it
    probability = torch.exp(log_ratio.clamp(max=0.0)).nan_to_num_(nan=0.0)
    return probability, rng.at("accept").uniform((len(log_ratio),), dtype=torch.float64) < probability


def metropolis(rng: Rng, target: Target, proposal: State, state: State, *, tilt: Tensor | float = 0.0) -> Sweep:
    """Take each proposal with the Metropolis probability, or stay.

    Args:
        tilt: (N,) nats that the log ratio has beside the two log-densities, of the proposal's own law.
    """
    acceptance, accept = accepted(rng, target.log_density(proposal) - target.log_density(state) + tilt)
    return Sweep(select(accept, proposal, state), acceptance, 1)
