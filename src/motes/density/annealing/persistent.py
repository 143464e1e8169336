"""Persistent sampling: all particles of all temperatures stay in a pool that is weighted as one mixture."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.estimate.variance import StandardError, freedom_of
from motes.core.particles import Particles
from motes.core.resampling import find_scheme
from motes.core.run import Run
from motes.density.annealing.annealed import Annealed
from motes.density.annealing.mixture import component, influence, log_total, mixture_weights, next_temperature, worth
from motes.density.last_look import LastLook
from motes.errors import MotesError
from motes.kernels import State, move
from motes.kernels.stationarity.dependence import EFFECT, FAINT, Dependence, find_dependence
from motes.kernels.stationarity.drift import CERTAIN, FEWEST, drift_between, effective_families, lagged
from motes.kernels.stationarity.settle import settle
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.rng import Rng

Tree = dict[str, Any]
FEW = 5.0
"""Fewer families than this, in effective number, tell too little about their spread."""
HEAVY = 0.15
"""The upper tail above which there is no error bar, see `last_look`: steps are so small that runs on Gaussians,
regressions, counts and a mean and deviation came to 0, a Student t from a Gaussian start to .48 and more, and eight
schools whose neck was entered too late to .24 to .35."""
KEPT = ("position", "log_prior", "log_likelihood", "prior_gradient", "likelihood_gradient")


@dataclass(frozen=True)
class PersistentSampling(Annealed):
    """Persistent sampling: tempering in which no particle is thrown away.

    Generation 0 are N draws from the prior; generation t are N particles that were drawn from all earlier generations,
    weighted for temperature b_t, and moved there. All generations together are draws from a mixture, so a state in the
    pool of generations 0 to t has, for any temperature b, the weight

        L^b / ((1 / (t + 1)) sum_k L^b_k / Z_k),

    whose mean estimates the evidence Z_b at that temperature, from likelihoods that are known already. The next
    temperature is where the effective sample size of the pool has fallen to `ess` N, so steps grow with the pool.

    A particle here is a lane: the t + 1 states of one slot. Its weight is the mean of theirs, and what it shows is one
    of them, drawn in proportion to its weight; `pool` gives all of them. Lanes are not resampled, and the resampling
    scheme and threshold of `motes.sample` are not used: ancestors are drawn systematically from the pool.

    The evidence is consistent as N grows and not unbiased: the Z_k in the denominators are estimates themselves, which
    costs a term of order 1/N, as does adaptation. The standard error follows each state's influence on the Z_k, and
    through them on Z, and adds up the squares of what families contribute, states that descend from one draw from the
    prior, with Student's t for their number. With few families there is none, and none of means, which count lanes as
    independent; where means drift to the end of moves there is none, and with moves that forget little it is too small.

    References:
        Karamanis & Seljak (2024), Persistent sampling: enhancing the efficiency of sequential Monte Carlo,
        arXiv:2407.20722.

    Args:
        density: what to sample.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        ess: effective sample size of the pool at the next temperature, in units of N; above 1 the first generations
            are all drawn from the prior.
        sweeps: sweeps of the kernel a step; "auto" goes on until the particles have forgotten their start.
        max_correlation: the correlation with the start at which the latter stops.

    Raises:
        MotesError: the kernel needs gradients that the density has not.

    >>> import torch, motes
    >>> from motes.density.annealing.persistent import PersistentSampling
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> model = PersistentSampling(motes.Density(lambda x: -0.5 * ((x - 2) / 0.3).square().sum(-1), normal))
    >>> run = motes.sample(model, 256, seed=0, progress=False)
    >>> bool((run.mean().value - 2 / 1.09).abs().max() < 0.2)
    True
    """

    _: KW_ONLY
    ess: float = 3.0
    sweeps: int | Literal["auto"] = "auto"
    max_correlation: float = 0.2

    sources: ClassVar[tuple[Reference, ...]] = (cited("karamanis2024", "particles of all temperatures as one mixture"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        few = self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1)
        if few or not (0 < self.ess and 0 < self.max_correlation < 1):
            raise MotesError(
                'need ess > 0, max_correlation in (0, 1) and sweeps >= 1 or "auto", '
                f"not ess={self.ess}, max_correlation={self.max_correlation}, sweeps={self.sweeps!r}"
            )

    def init(self, rng: Rng, n: int) -> Particles:
        empty = torch.empty(n, 0, dtype=torch.float64)
        x = {"pool": {}, "mixture": empty, "root": empty.long(), "choice": torch.zeros(n, dtype=torch.int64)}
        shared = {
            "ladder": torch.zeros(1, dtype=torch.float64),
            "log_z": torch.zeros(1, dtype=torch.float64),
            "kernel": self.mover.start(self.density.dim, self.density.dtype),
            "final": False,
            "unsettled": 0,
            "dependence": None,
            "look": LastLook(heavy=HEAVY).to_shared(),
        }
        x, log_weight, shared, info = self._grown(rng, *self._fresh(rng, x, shared))
        return Particles.start(x, log_weight, shared=shared, info=info)

    def must_resample(self, particles: Particles) -> bool:
        return False

    def step(self, rng: Rng, particles: Particles) -> Particles:
        # where the pool is worth too little above temperature 0, another generation comes from the prior
        grow = self._fresh if particles.shared["ladder"][-1] == 0 else self._moved
        x, state, root, shared, info = grow(rng, particles.x, particles.shared)
        rise = float(shared["ladder"][-1]) - float(shared["ladder"][-2]) if len(shared["ladder"]) > 1 else 0.0
        look = LastLook(**shared["look"]).after(info["evaluations"], rise, state["log_likelihood"])
        x, log_weight, shared, info = self._grown(rng, x, state, root, {**shared, "look": look.to_shared()}, info)
        # the weights are made anew from the whole pool: a lane that had weight zero may have one now
        after = particles.step(x, torch.zeros_like(log_weight), shared=shared, info=info)
        after = replace(after, log_weight=log_weight)
        if not shared["final"]:
            return after
        even = torch.full((particles.n,), 1 / particles.n, dtype=torch.float64)
        return self.looked(rng, after, state, even, torch.unique(state["parent"], return_inverse=True)[1])

    def done(self, particles: Particles) -> bool:
        return particles.shared["final"]

    def remarks(self, particles: Particles) -> list[str]:
        said = super().remarks(particles)
        if self.done(particles) and particles.shared["unsettled"]:
            where = f"in {particles.shared['unsettled']} moves"
            advice = "Use motes.Tempering, which takes more care, or a better parametrisation"
            said.append(lagged(where, "the temperature", advice, kept=True))
        return said

    # ---------------------------------------------------------------- generations

    def _fresh(self, rng: Rng, x: Tree, shared: Tree) -> tuple[Tree, State, Tensor, Tree, Tree]:
        """A generation from the prior; its states begin new families."""
        n, before = x["mixture"].shape
        state = self.density.evaluate(self.density.sample(rng.at("prior"), n), self.mover.gradient)
        return x, state, torch.arange(before * n, (before + 1) * n), shared, {"evaluations": 1.0}

    def _moved(self, rng: Rng, x: Tree, shared: Tree) -> tuple[Tree, State, Tensor, Tree, Tree]:
        """A generation at the last temperature: states drawn from the pool and moved."""
        target, n = self.target(float(shared["ladder"][-1])), len(x["choice"])
        log_weight = mixture_weights(x["mixture"], x["pool"]["log_likelihood"], target.temperature).flatten()
        pool = {k: v.flatten(0, 1) for k, v in x["pool"].items()}
        parameters = self.mover.fit(shared["kernel"], target, pool, log_weight.softmax(0))
        # in the order of lanes, so that each half of the population is scaled by lanes that it does not come from
        parent = find_scheme("systematic")(rng.at("parents"), log_weight, n=n)
        start, even = tree.take(pool, parent), torch.full((n,), 1 / n, dtype=torch.float64)
        family = torch.unique(parent, return_inverse=True)[1]
        dependence = self._dependence(shared, pool["position"], log_weight.softmax(0))
        if dependence is not None:
            moved, _ = settle(
                self.mover, rng, target, start, even, family, parameters, dependence,
                sweeps=self.sweeps, max_correlation=self.max_correlation,
            )  # fmt: skip
            shared = {**shared, "dependence": dependence.to_json()}
        else:
            moved = move(
                self.mover, rng, target, start, even, parameters,
                sweeps=self.sweeps, max_correlation=self.max_correlation,
            )  # fmt: skip
        state = {**moved.state, "parent": parent}
        shared = {**shared, "kernel": moved.parameters}
        if effective_families(family, even) > FEWEST:
            found = drift_between(target, start, moved.state, even, family)
            shared["unsettled"] += found.largest > CERTAIN
        return x, state, x["root"].flatten()[parent], shared, moved.info

    def _dependence(self, shared: Tree, position: Tensor, weight: Tensor) -> Dependence | None:
        """The dependence of scales that the pool shows, or has shown where that was more."""
        if not self.mover.anywhere or self.density.levels is not None:
            return None
        known = shared["dependence"]
        found = find_dependence(position, weight, EFFECT if known is None else FAINT)
        return found if known is None else Dependence.from_json(known).wider(found)

    def _grown(
        self, rng: Rng, x: Tree, state: State, root: Tensor, shared: Tree, info: Tree
    ) -> tuple[Tree, Tensor, Tree, Tree]:
        """The pool with one more generation, weighted for the next temperature: x, the lanes' log-weights and so on."""
        ladder, log_z, now = shared["ladder"], shared["log_z"], float(shared["ladder"][-1])
        old = x["pool"] or {k: v[:, None][:, :0] for k, v in state.items() if k in KEPT}
        pool = {k: torch.cat([v, state[k][:, None]], 1) for k, v in old.items()}
        every = [component(float(b), float(z), state["log_likelihood"]) for b, z in zip(ladder, log_z, strict=True)]
        before = torch.logaddexp(x["mixture"], component(now, float(log_z[-1]), pool["log_likelihood"][:, :-1]))
        mixture = torch.cat([before, torch.stack(every).logsumexp(0)[:, None]], 1)
        final = now == 1.0
        then = 1.0 if final else next_temperature(mixture, pool["log_likelihood"], now, self.ess * len(root))
        log_weight = mixture_weights(mixture, pool["log_likelihood"], then)
        shared = {**shared, "final": final}
        if not final:
            shared["ladder"] = torch.cat([ladder, torch.tensor([then], dtype=torch.float64)])
            shared["log_z"] = torch.cat([log_z, torch.tensor([log_total(log_weight)], dtype=torch.float64)])
        lane = log_weight.logsumexp(1) - math.log(log_weight.shape[1])
        dead = (lane == -math.inf)[:, None]
        x = {
            "pool": pool,
            "mixture": mixture,
            "root": torch.cat([x["root"], root[:, None]], 1),
            "choice": rng.at("choice").categorical(torch.where(dead, 0.0, log_weight)),
        }
        return x, lane, shared, {"temperature": then, "pool_ess": worth(log_weight), **info}

    # ---------------------------------------------------------------- what a run shows

    def standard_error(self, particles: Particles) -> StandardError:
        x, shared, method = particles.x, particles.shared, "influence of families"
        if particles.n < 2 or particles.log_weight.max() == -math.inf:
            return StandardError(math.nan, method, "one particle, or weights that are all zero, have no spread")
        likelihood, root = x["pool"]["log_likelihood"], x["root"].flatten()
        weight = mixture_weights(x["mixture"], likelihood, float(shared["ladder"][-1])).flatten().softmax(0)
        families = 1 / float(torch.bincount(root, weights=weight).square().sum())
        if families < FEW:
            reason = f"the pool descends from too few families, {families:.1f} in effective number: use more particles"
            return StandardError(math.nan, method, reason, means=reason)
        found = influence(shared["ladder"], shared["log_z"], likelihood).flatten()
        square = torch.bincount(root, weights=found).square()
        return StandardError(float(square.sum().sqrt()), method, freedom=freedom_of(square, families))

    def pool(self, run: Run) -> tuple[Values, Tensor]:
        """All states of all generations, and their log-weights (N (t + 1),), for means that use everything."""
        if run.setup["model"] != "PersistentSampling":
            raise MotesError(f"a pool is what a PersistentSampling run has, not one of {run.setup['model']}")
        run = run.alone("pool")
        x, shared = run.particles.x, run.particles.shared
        log_weight = mixture_weights(x["mixture"], x["pool"]["log_likelihood"], float(shared["ladder"][-1]))
        return self.density.constrain(x["pool"]["position"].flatten(0, 1)), log_weight.flatten()

    def view(self, particles: Particles) -> Values:
        x = particles.x
        return self.density.constrain(x["pool"]["position"][torch.arange(particles.n), x["choice"]])

    def positions(self, particles: Particles) -> Tensor:
        return particles.x["pool"]["position"][:, -1]

    def restore(self, particles: Particles) -> Particles:
        same_values(self.density, {k: v.flatten(0, 1) for k, v in particles.x["pool"].items()})
        return particles

    def progress(self, particles: Particles) -> float:
        ladder = particles.shared["ladder"]
        positive = ladder[ladder > 0]
        if len(positive) == 0:
            return 0.0
        return 1.0 if ladder[-1] == 1.0 else 1.0 - math.log(float(ladder[-1])) / math.log(float(positive[0]))
