"""Probabilities of rare events by multilevel splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError
from motes.core.files.settings import short
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.run import Run
from motes.density.kernel_choice import choose_kernel
from motes.density.rare.performance import Performance, performances, same_performance
from motes.errors import MotesError
from motes.kernels import Kernel, State, Tally, Target, move
from motes.laws.law import Law
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.rng import Rng

REMEMBERED = 0.5
"""Mean correlation with the start after full moves, above which the error bar of clones that forget is not given:
intervals of +-1.96 covered 93 % of 60 runs where it was 0.41, 90 % at 0.55, and 58 % at 0.77."""


@dataclass(frozen=True)
class Above(Target):
    """The reference of a law, kept to the points with performance above a level, or at it if not `strict`."""

    density: Law
    performance: Performance
    level: float
    strict: bool
    counted: Tally = field(default_factory=Tally, compare=False, repr=False)

    @property
    def levels(self) -> int | None:
        return self.density.levels

    def tally(self) -> Tally:
        return self.counted

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        state, undefined = self.density.trial(position, gradient)
        self.counted.add(undefined)
        legal = state["log_prior"] > -math.inf
        if not legal.all() and legal.any():  # the performance is not asked where there is no parameter
            position = torch.where(legal[:, None], position, position[legal][:1])
        found = performances(self.performance, self.density.constrain(position), len(position))
        return {**state, "performance": torch.where(legal, found, -math.inf)}

    def inside(self, state: State) -> Tensor:
        """(N,) whether the points are where the law is."""
        found = state["performance"]
        return found > self.level if self.strict else found >= self.level

    def log_density(self, state: State) -> Tensor:
        return torch.where(self.inside(state), state["log_prior"], -math.inf)

    def gradient(self, state: State) -> Tensor:
        return torch.where(self.inside(state)[:, None], state["prior_gradient"], 0.0)


@dataclass(frozen=True)
class Splitting(FeynmanKac):
    """Multilevel splitting: the probability of a rare event as a product of not so small ones, with any kernel.

    X has the density's reference as its law (its log-likelihood must be 0), S is the performance, and the normaliser is
    P(S(X) >= level). Of N particles the k lowest are killed: the next level L is the k-th smallest performance, and all
    with S <= L die, K of them (K > k where there are ties). Survivors' clones take the empty places, and a kernel that
    leaves the law of X given S > L invariant moves them. The estimate is the product of (N - K) / N over the levels,
    times the fraction with S >= level once L reaches the level. That equality counts as dying makes it right for a
    performance of whole numbers, or with jumps; a last level that no particle survives gives the estimate 0, and an
    error.

    Two variants: with `kill` a fraction, all particles are moved at each level (subset simulation, adaptive sequential
    Monte Carlo). With `kill` a number of particles, 1 for the last-particle algorithm, survivors keep their places, and
    only clones are moved; once N have died, the whole population is, which tells the kernel its scales and how many
    sweeps it takes to forget.

    Were the moves exact draws of X given S > L, the estimate would be unbiased for any N and any k, ties or not, and
    the variance of its logarithm the sum of K / (N (N - K)) and of the last fraction's (1 - r) / (r N), or -log p / N
    for k = 1. With Markov moves levels and scales that are chosen from the particles bias it by a term of order 1/N.
    With fixed `levels` what is left of that is the kernel's scales, and `freeze` fixes those too: then it is unbiased.

    For a fraction the error bar is that of the genealogy. For a number of particles it is the formula above, which
    assumes that clones forget their parents. For neither is there one where full moves left a mean correlation of
    positions or of the performance with the start above 0.5.

    References:
        Cérou, Del Moral, Furon & Guyader (2012), Sequential Monte Carlo for rare event estimation, Statistics and
        Computing 22(3).
        Au & Beck (2001), Estimation of small failure probabilities in high dimensions by subset simulation,
        Probabilistic Engineering Mechanics 16(4).
        Bréhier, Lelièvre & Rousset (2015), Analysis of adaptive multilevel splitting algorithms in an idealized case,
        ESAIM: Probability and Statistics 19 (no bias whatever k).
        Bréhier, Gazeau, Goudenège, Lelièvre & Rousset (2016), Unbiasedness of some generalized adaptive multilevel
        splitting algorithms, Annals of Applied Probability 26(6) (ties).

    Args:
        density: its reference is the law of X.
        performance: maps the parameters of N points to (N,).
        level: of the event performance >= level.
        kernel: a kernel or its name; None is random-walk Metropolis, or single flips on whole numbers.
        kill: the fraction that dies at a level, in (0, 1); or how many particles, at least 1.
        levels: fixed ones, increasing, below `level`, instead of those of `kill`.
        sweeps: sweeps of the kernel; "auto" goes on until the particles have forgotten their start.
        max_correlation: the correlation with the start, of positions and of the performance, at which "auto" stops.
        ladder: levels, sweeps and kernel parameters of an earlier run, see `freeze`.

    Raises:
        MotesError: the kernel needs gradients that there are not, or moves whole populations; or there is a likelihood.
        ValueError: a knob is out of its range.

    >>> import torch, motes
    >>> from motes.density.rare.splitting import Splitting
    >>> normal = torch.distributions.Normal(torch.zeros(4, dtype=torch.float64), 1.0)
    >>> density = motes.Density(lambda x: torch.zeros(len(x)), normal, vectorised=True)
    >>> run = motes.sample(Splitting(density, lambda x: x.sum(1), 8.0), 500, seed=0, progress=False)
    >>> abs(run.log_evidence - -10.3602) < 0.7  # log P(N(0, 1) > 4)
    True
    """

    density: Law
    performance: Performance
    level: float
    _: KW_ONLY
    kernel: Kernel | str | None = None
    kill: float | int = 0.7
    levels: Sequence[float] | None = None
    sweeps: int | Literal["auto"] = "auto"
    max_correlation: float = 0.3
    ladder: list[dict[str, Any]] | None = None

    quantity: ClassVar[str] = "log probability"

    def __post_init__(self) -> None:
        kernel = choose_kernel(self.density, self.kernel, "random-walk")
        if isinstance(self.kill, bool) or not (0 < self.kill < 1 or (isinstance(self.kill, int) and self.kill >= 1)):
            raise MotesError(f"kill must be a fraction in (0, 1) or a whole number of particles, not {self.kill!r}")
        if kernel.ensemble and isinstance(self.kill, int):
            raise MotesError(f"{type(kernel).__name__} moves whole populations: use it with kill as a fraction")
        if not math.isfinite(self.level) or not 0 < self.max_correlation < 1:
            raise MotesError(
                f"level must be finite and max_correlation lie in (0, 1), not {self.level} and {self.max_correlation}"
            )
        if self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1):
            raise MotesError(f'sweeps must be "auto" or a number of sweeps, not {self.sweeps!r}')
        object.__setattr__(self, "kernel", kernel)
        if self.levels is not None:
            levels = [float(v) for v in self.levels]
            if isinstance(self.kill, int) or levels != sorted(set(levels)) or (levels and levels[-1] >= self.level):
                raise MotesError("levels must increase and stay below `level`, and do not go with a number to kill")
            object.__setattr__(self, "levels", tuple(levels))

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return (*REFERENCES, *self._kernel.references)

    @property
    def _kernel(self) -> Kernel:
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    def init(self, rng: Rng, n: int) -> Particles:
        if n < 2:
            raise MotesError(
                f"splitting replaces the dead by clones of survivors, so it needs at least 2 particles, not {n}"
            )
        if isinstance(self.kill, int) and self.kill >= n:
            raise MotesError(f"of {n} particles at most {n - 1} can be killed at a level, not {self.kill}")
        z = self.density.sample(rng.at("reference"), n)
        x = Above(self.density, self.performance, -math.inf, False).evaluate(z, self._kernel.gradient)
        if bool((x["log_likelihood"] != 0).any()):
            raise MotesError(
                "the density has a likelihood, and Splitting estimates the probability under its reference alone: give "
                "a density whose log_likelihood is 0, or use CrossEntropy, which takes the likelihood into account"
            )
        rung = self._next(x, 0)
        weight, variance = self._potential(x, rung)
        shared = {
            "rung": rung,
            "ladder": [] if isinstance(self.kill, int) else [rung],
            "kernel": self._kernel.start(self.density.dim, z.dtype),
            "sweeps": 0,
            "correlations": [],
            "killed": 0,
            "variance": variance,
        }
        return Particles.start(x, weight, shared=shared, info=self._info(rung, variance, {"evaluations": 1.0}))

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, n = particles.shared, particles.n
        target = Above(self.density, self.performance, shared["rung"]["level"], shared["rung"]["strict"])
        clones = (particles.ancestor != torch.arange(n)).nonzero().flatten()
        killed = shared["killed"] + len(clones)
        if not isinstance(self.kill, int):
            x, learnt, info = self._move(rng, target, particles.x, shared, particles.t + 1)
        else:
            x, learnt, info = particles.x, {}, {"evaluations": 0.0}
            if particles.t == 0 or killed >= n:  # new scales, and the number of sweeps for the clones until the next
                x, learnt, info = self._move(rng.at("all"), target, x, shared, particles.t + 1)
                killed = 0
            elif len(clones):
                x, info = self._move_clones(rng.at("clones"), target, x, shared, clones)
        x = {k: v for k, v in x.items() if k in particles.x or not isinstance(self.kill, int)}
        rung = self._next(x, particles.t + 1)
        potential, variance = self._potential(x, rung)
        variance += shared["variance"]
        used = learnt.pop("used", {})
        ladder = [] if isinstance(self.kill, int) else [*shared["ladder"], {**rung, **used}]
        shared = {**shared, **learnt, "rung": rung, "ladder": ladder, "killed": killed, "variance": variance}
        return particles.step(x, potential, shared=shared, info=self._info(rung, variance, info))

    def done(self, particles: Particles) -> bool:
        return particles.shared["rung"]["final"]

    def must_resample(self, particles: Particles) -> bool:
        """Whether somebody died."""
        return bool((particles.log_weight == -math.inf).any())

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        """Clones of survivors for the dead; with `kill` a number survivors keep their places, whatever the scheme."""
        if not isinstance(self.kill, int):
            order = self.order(particles) if scheme.needs_order else None
            return particles.resampled(scheme(rng, particles.log_weight, order=order))
        alive = particles.log_weight > -math.inf
        survivors, index = alive.nonzero().flatten(), torch.arange(particles.n)
        parents = survivors[rng.at("parents").integers((particles.n,), len(survivors))]
        return particles.resampled(torch.where(alive, index, parents))

    def standard_error(self, particles: Particles) -> StandardError | None:
        """The error for clones that forget their parents, where `kill` is a number; else the genealogy's (None).

        There is none for either where moves left more of the start than `REMEMBERED`, and none for means.
        """
        if not self.done(particles):
            return None
        shared, method = particles.shared, "splitting with clones that forget"
        left = sum(shared["correlations"]) / max(1, len(shared["correlations"]))
        if left > REMEMBERED:
            reason = (
                f"clones remember their parents: full moves left a correlation of {left:.2f}. Use "
                "more moves or a kernel that mixes better, or take the spread over several runs"
            )
            return StandardError(math.nan, method, reason, reason)
        return StandardError(math.sqrt(shared["variance"]), method) if isinstance(self.kill, int) else None

    def _move(
        self, rng: Rng, target: Above, x: State, shared: dict[str, Any], t: int
    ) -> tuple[State, dict[str, Any], dict[str, float]]:
        """Everybody moved; what the kernel learnt; and what there is to say."""
        n = len(x["position"])
        weight = torch.full((n,), 1 / n, dtype=torch.float64)
        if self.ladder is None:
            parameters = self._kernel.fit(shared["kernel"], target, x, weight)
            sweeps = self.sweeps
        else:
            parameters, sweeps = self.ladder[t]["parameters"], self.ladder[t]["sweeps"]
        moved = move(
            self._kernel,
            rng,
            target,
            x,
            weight,
            parameters,
            sweeps=sweeps,
            max_correlation=self.max_correlation,
            adapt=self.ladder is None,
            watch=_performance,
        )
        learnt = {
            "kernel": moved.parameters,
            "sweeps": moved.sweeps,
            "correlations": [*shared["correlations"], moved.info["correlation"]],
            "used": {"sweeps": moved.sweeps, "parameters": moved.used},
        }
        return moved.state, learnt, moved.info

    def _move_clones(
        self, rng: Rng, target: Above, x: State, shared: dict[str, Any], clones: Tensor
    ) -> tuple[State, dict[str, float]]:
        part, m = tree.take(x, clones), len(clones)
        weight = torch.full((m,), 1 / m, dtype=torch.float64)
        moved = move(self._kernel, rng, target, part, weight, shared["kernel"], sweeps=shared["sweeps"], adapt=False)
        new = {k: v.index_copy(0, clones, moved.state[k]) for k, v in x.items()}
        return new, {"evaluations": moved.info["evaluations"] * m / len(x["position"])}

    def _next(self, x: State, t: int) -> dict[str, Any]:
        """The next level, whether those at it die, and whether it is the last."""
        last = {"level": float(self.level), "strict": False, "final": True}
        if self.ladder is not None:
            return {k: self.ladder[t][k] for k in last}
        if self.levels is not None:
            return last if t >= len(self.levels) else {"level": self.levels[t], "strict": False, "final": False}
        n = len(x["performance"])
        k = self.kill if isinstance(self.kill, int) else min(max(1, round(self.kill * n)), max(1, n - 1))
        level = float(x["performance"].kthvalue(k).values)
        return last if level >= self.level else {"level": level, "strict": True, "final": False}

    def _potential(self, x: State, rung: dict[str, Any]) -> tuple[Tensor, float]:
        """(N,) nats, 0 for who survives and -inf for who does not; and the variance that this adds to the logarithm."""
        target = Above(self.density, self.performance, rung["level"], rung["strict"])
        alive = target.inside(x)
        n, left = len(alive), int(alive.sum())
        return torch.where(alive, 0.0, -math.inf).double(), (n - left) / (n * left) if left else math.inf

    def _info(self, rung: dict[str, Any], variance: float, more: dict[str, float]) -> dict[str, float]:
        return {"level": rung["level"], "idealised_se": math.sqrt(variance), **more}

    def freeze(self, run: Run) -> Splitting:
        """The same model with levels, sweeps and kernel parameters fixed to those that `run` found.

        A run of it with another seed estimates the probability without bias.

        Raises:
            MotesError: the run has not ended, is of another kind, or killed a number of particles.
        """
        run = run.alone("freeze")
        ladder = run.particles.shared.get("ladder") if isinstance(run.particles.shared, dict) else None
        if run.setup["model"] != "Splitting" or not ladder or isinstance(self.kill, int):
            raise MotesError("freeze needs a finished Splitting run with kill as a fraction, or with levels")
        found, mine = run.setup["settings"], self.settings()
        if any(found.get(k) != mine[k] for k in ("kernel", "density", "level")):
            raise MotesError(
                f"the run has kernel {found.get('kernel')} and level {found.get('level')}, unlike this model"
            )
        if not ladder[-1]["final"]:
            raise MotesError(f"the run stopped at level {ladder[-1]['level']:.6g}: resume it, then freeze it")
        return replace(self, ladder=ladder)

    def view(self, particles: Particles) -> Values:
        return self.density.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        """The particles, if density and performance still say of them what their file says.

        Raises:
            FileError: the prior or the performance has changed since.
        """
        same_values(self.density, particles.x)
        same_performance(self.performance, self.density, particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        return particles.x["performance"]

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "ladder": None if self.ladder is None else short(self.ladder)}


REFERENCES = (cited("cerou2012", "multilevel splitting"), cited("brehier2015", "multilevel splitting"))


def _performance(state: State) -> Tensor:
    """(N,) finite: what decides who survives, and so has to be forgotten."""
    return torch.nan_to_num(state["performance"])
