"""Data annealing: the posterior grows by one observation, or one batch of them, at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.core import tree
from motes.core.cite import Reference, cited
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.run import Run
from motes.core.temperature import next_temperature
from motes.core.tree import PyTree
from motes.core.weights import normalise
from motes.density.annealing.care import FINE
from motes.density.kernel_choice import choose_kernel
from motes.density.last_look import LastLook, last_look
from motes.errors import FileError, MotesError, ShapeError
from motes.kernels import Kernel, move
from motes.kernels.stationarity.drift import CERTAIN, FEWEST, MeanDrift, drift_between, effective_families, lagged
from motes.kernels.stationarity.settle import settle
from motes.laws.checking import check
from motes.laws.density import Density
from motes.laws.likelihood import LogLikelihood, batched
from motes.laws.parameters import Values
from motes.laws.restore import same_values
from motes.laws.tempered import Tempered
from motes.rng import Rng

FORGOTTEN = 0.1
"""The correlation with their start at which particles have moved enough, as in `Tempering`. At .5, 10 runs with 256
particles on a regression with an unknown scale were low by .4 nats at a stated .3."""
KEPT = ("position", "log_prior", "log_likelihood")


@dataclass(frozen=True)
class DataAnnealing(FeynmanKac):
    """Iterated batch importance sampling: particles follow the posterior as observations come in.

    The particles are drawn from the prior. Step t multiplies the weights by the likelihood of the next batch, p(y_s |
    theta), so the mean weight estimates p(y_1:s) at every s, and ratios of them are predictive densities. Where the
    population has been resampled, it is first moved by a kernel that leaves the posterior of the data seen so far
    invariant, which costs as many terms as there are observations so far. If a batch would leave less than
    `conditional_ess` of the effective sample size, it enters in several steps, by powers of its likelihood.

    Moves that have shifted the means by more than chance allows show that the particles did not keep up with the data:
    then the run begins anew in one step, with smaller powers of the likelihood and moves that go on until nothing
    drifts. What still drifts after that has no error bar, nor has a run whose last particles drift when some are moved
    further.

    More data can come later: `motes.resume` continues a finished run with a model whose observations begin with those
    of the run, to the particles that one run over all of them would have had (if batches are cut at the same places).

    The kernel's parameters, the number of sweeps and the powers are chosen from the particles, which biases the
    evidence by a term of order 1/N; without moves (`ess_threshold=0`) and powers it is unbiased.

    References:
        Chopin (2002), A sequential particle filter method for static models, Biometrika 89(3).

    Args:
        log_likelihood: maps parameters and B observations to nats by observation: parameters with a first axis of N
            points to (N, B), or those of one point to (B,), which is then batched by `torch.func.vmap`. The terms
            must multiply to the likelihood: for dependent data the observations carry what they are conditioned on.
        prior: a `torch.distributions` object over a flat vector, or a dict of them by name.
        observations: a tensor (T, ...), or a dict, tuple or list of such tensors with the same T.
        batch: observations a step.
        kernel: a kernel or its name; None is HMC where the likelihood has gradients, else random-walk Metropolis.
        conditional_ess: the fraction of the effective sample size that one step may leave, in (0, 1).
        sweeps: sweeps of the kernel a move; "auto" goes on until the particles have forgotten their start.
        vectorised: whether `log_likelihood` takes a batch of points; None finds out.
        dtype: of the parameters and of every evaluation.

    Raises:
        ShapeError: the observations have no common first axis, or the log-likelihood does not return their number.

    >>> import torch, motes
    >>> from motes.density.annealing.data_annealing import DataAnnealing, evidence_path
    >>> y = torch.tensor([0.3, 1.2, 0.8, 1.5], dtype=torch.float64)
    >>> model = DataAnnealing(
    ...     lambda p, y: torch.distributions.Normal(p["mean"], 1.0).log_prob(y),
    ...     {"mean": torch.distributions.Normal(0.0, 2.0)},
    ...     y,
    ... )
    >>> run = motes.sample(model, 500, seed=0, progress=False)
    >>> [int(seen) for seen in evidence_path(run)[0]]
    [0, 1, 2, 3, 4]
    """

    log_likelihood: Callable[[Any, Any], Tensor]
    prior: Distribution | Mapping[str, Distribution]
    observations: PyTree
    _: KW_ONLY
    batch: int = 1
    kernel: Kernel | str | None = None
    conditional_ess: float = 0.5
    sweeps: int | Literal["auto"] = "auto"
    vectorised: bool | None = None
    dtype: torch.dtype = torch.float64
    first: Density = field(init=False, repr=False, compare=False)
    """Prior and first batch; the law by which the parameters are known."""

    quantity: ClassVar[str] = "log evidence"

    def __post_init__(self) -> None:
        few = self.sweeps != "auto" and (not isinstance(self.sweeps, int) or self.sweeps < 1)
        if few or self.batch < 1 or not 0 < self.conditional_ess < 1:
            raise MotesError(
                'need batch >= 1, conditional_ess in (0, 1) and sweeps >= 1 or "auto", '
                f"not batch={self.batch}, conditional_ess={self.conditional_ess}, sweeps={self.sweeps!r}"
            )
        sizes = {len(v) if isinstance(v, Tensor) and v.ndim else None for _, v in tree.leaves(self.observations)}
        if len(sizes) != 1 or None in sizes or 0 in sizes:
            raise ShapeError(f"observations must be tensors (T, ...) with one T >= 1, not {self.observations!r}")
        f = self._sum(0, min(max(2, self.batch), self.count))
        first = Density(f, self.prior, vectorised=self.vectorised, dtype=self.dtype)
        set_ = object.__setattr__
        set_(self, "first", first)
        set_(self, "vectorised", batched(f, first.parameters, self.vectorised) is f)
        set_(self, "kernel", choose_kernel(first, self.kernel, "hmc"))

    @property
    def references(self) -> tuple[Reference, ...]:  # type: ignore[override]
        return (*REFERENCES, *self._kernel.references)

    @property
    def _kernel(self) -> Kernel:
        assert isinstance(self.kernel, Kernel)
        return self.kernel

    @property
    def count(self) -> int:
        """How many observations there are."""
        return len(next(v for _, v in tree.leaves(self.observations)))

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        return self._begin(rng, n, careful=False)

    def _begin(self, rng: Rng, n: int, careful: bool, begun: int = 0, spent: float = 0.0) -> Particles:
        """`n` draws from the prior at time `begun`, after a step that cost `spent` evaluations a particle."""
        state = self.first.evaluate(self.first.sample(rng.at("prior"), n))
        x = {**{k: state[k] for k in KEPT}, "log_likelihood": torch.zeros(n, dtype=torch.float64)}
        shared = {
            "seen": 0,
            "exponent": 0.0,
            "fresh": False,
            "kernel": self._kernel.start(self.first.dim, self.dtype),
            "careful": careful,
            "begun": begun,
            "unsettled": 0,
            "family": torch.arange(n),
            "look": LastLook().to_shared(),
        }
        info = {"observations": 0, "exponent": 1.0} | ({"evaluations": spent} if begun else {})
        start = Particles.start(x, torch.zeros(n, dtype=torch.float64), shared=shared, info=info)
        return replace(start, t=begun)

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        children = super().resampled(rng, scheme, particles)
        return replace(children, shared={**particles.shared, "fresh": True, "family": children.ancestor})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, x, info = particles.shared, particles.x, {}
        seen, before = shared["seen"], shared["exponent"]
        if shared["fresh"]:
            x, shared, info, found = self._move(rng.at("move"), particles)
            tested = effective_families(particles.ancestor, normalise(particles.log_weight)) > FEWEST
            if tested and found.largest > CERTAIN:
                if not shared["careful"]:
                    return self._begin(rng.at("again"), particles.n, True, particles.t + 1, info["evaluations"])
                shared["unsettled"] += 1
        stop = min(seen + self.batch, self.count)
        gain = self._gain(x["position"], seen, stop)
        alive = (particles.log_weight > -math.inf) & (gain > -math.inf)
        # with nothing alive the engine reports it
        kept = 1 - FINE * (1 - self.conditional_ess) if shared["careful"] else self.conditional_ess
        after = next_temperature(particles.log_weight, gain, before, kept) if alive.any() else 1.0
        if not after > before:
            raise MotesError(
                f"the power of the observations {seen} to {stop - 1} cannot rise above {before!r} at "
                f"t={particles.t + 1}: their log-likelihood varies by more than its 16 digits hold; look for a "
                "likelihood of enormous size"
            )
        potential = (after - before) * gain
        shared = {**shared, "seen": seen, "exponent": after, "fresh": False}
        if after == 1.0:
            shared |= {"seen": stop, "exponent": 0.0}
        x = {**x, "log_likelihood": x["log_likelihood"] + potential}
        info = {"observations": shared["seen"], "exponent": after, **info}
        moved = particles.step(x, potential, shared=shared, info=info)
        return self._looked(rng, moved) if shared["seen"] >= self.count else moved

    def _looked(self, rng: Rng, particles: Particles) -> Particles:
        """Finished particles with what a last look at them found."""
        if not particles.log_weight.max() > -math.inf:
            return particles  # the engine reports it
        shared, target = particles.shared, Tempered(self._so_far(particles.shared), 1.0)
        weight = normalise(particles.log_weight)
        noted = replace(LastLook(**shared["look"]), drift=0.0, limit=math.inf)  # of data that were the last before
        look = last_look(rng.at("last-look"), noted, target, self._kernel, particles.x, weight, shared["family"])
        return replace(particles, shared={**shared, "look": look.to_shared()})

    def restarted(self, particles: Particles) -> bool:
        return particles.shared["begun"] == particles.t > 0

    def remarks(self, particles: Particles) -> list[str]:
        if not self.done(particles):
            return []
        said = LastLook(**particles.shared["look"]).remarks()
        if particles.shared["unsettled"]:
            where = f"in {particles.shared['unsettled']} moves"
            said.append(lagged(where, "the data", "Take smaller batches, more particles or another parametrisation"))
        return said

    def done(self, particles: Particles) -> bool:
        return particles.shared["seen"] >= self.count

    def continues(self, particles: Particles) -> bool:
        """More observations have come than the particles have seen."""
        return not self.done(particles)

    # ---------------------------------------------------------------- parts of a step

    def _move(
        self, rng: Rng, particles: Particles
    ) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, float], MeanDrift]:
        """The particles after a move that leaves the posterior so far invariant, and how far that moved their means."""
        shared, kernel = particles.shared, self._kernel
        target = Tempered(self._so_far(shared), 1.0)
        state = target.density.evaluate(particles.x["position"], True) if kernel.gradient else particles.x
        weight, family = normalise(particles.log_weight), particles.ancestor
        if shared["careful"]:
            moved, found = settle(
                kernel, rng, target, state, weight, family, shared["kernel"], None,
                sweeps=self.sweeps, max_correlation=max(FORGOTTEN, particles.n**-0.5),
            )  # fmt: skip
        else:
            parameters = kernel.fit(shared["kernel"], target, state, weight)
            moved = move(
                kernel, rng, target, state, weight, parameters,
                sweeps=self.sweeps, max_correlation=FORGOTTEN, every=True,
            )  # fmt: skip
            found = drift_between(target, state, moved.state, weight, family)
        look = LastLook(**shared["look"]).after(moved.info["evaluations"], 0.0, moved.state["log_likelihood"])
        shared = {**shared, "kernel": moved.parameters, "look": look.to_shared()}
        return {k: moved.state[k] for k in KEPT}, shared, moved.info, found

    def _so_far(self, shared: dict[str, Any]) -> Density:
        """The posterior of the complete observations and of the power of the batch that has begun."""
        seen, exponent = shared["seen"], shared["exponent"]
        stop = min(seen + self.batch, self.count) if exponent > 0 else seen
        power = torch.ones(stop, dtype=self.dtype)
        power[seen:] = exponent
        return Density(self._sum(0, stop, power), self.prior, vectorised=self.vectorised, dtype=self.dtype)

    def _gain(self, z: Tensor, start: int, stop: int) -> Tensor:
        """(N,) the log-likelihood of the observations from `start` to `stop`, nats."""
        values, _, inside = self.first.parameters.constrain(z)
        f = self._sum(start, stop)
        with torch.no_grad():
            gain = (f if self.vectorised else torch.func.vmap(f))(values).to(torch.float64)
        check(self.first.constrain, gain, inside, z, None)
        return gain if inside is None else torch.where(inside, gain, -math.inf)

    def _sum(self, start: int, stop: int, power: Tensor | None = None) -> LogLikelihood:
        """The log-likelihood of some observations as a function of the parameters alone."""
        data = tree.map_leaves(lambda v: v[start:stop], self.observations)

        def log_likelihood(values: Values) -> Tensor:
            terms = self.log_likelihood(values, data)
            if not isinstance(terms, Tensor) or terms.ndim == 0 or terms.shape[-1] != stop - start:
                what = tuple(terms.shape) if isinstance(terms, Tensor) else type(terms).__name__
                # no MotesError, so that both ways of calling it are tried
                raise ValueError(
                    f"for {stop - start} observations the last axis must count them, and it returned {what}"
                )
            return (terms if power is None else terms * power).sum(-1)

        return log_likelihood

    # ---------------------------------------------------------------- what a run shows

    def view(self, particles: Particles) -> Values:
        return self.first.constrain(particles.x["position"])

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the observations that they have seen are still the first ones.

        Raises:
            FileError: they are not, or the functions have changed.
        """
        seen = particles.shared["seen"]
        if seen > self.count:
            raise FileError(
                f"the run has seen {seen} observations, and there are {self.count} now: give those and more"
            )
        if seen or particles.shared["exponent"] > 0:
            same_values(self._so_far(particles.shared), particles.x)
        return particles

    def order(self, particles: Particles) -> Tensor:
        x = particles.x
        return x["position"][:, 0] if self.first.dim == 1 else x["log_likelihood"]

    def progress(self, particles: Particles) -> float:
        return particles.shared["seen"] / self.count

    def settings(self) -> dict[str, Any]:
        return {
            "density": self.first.settings(),
            "kernel": repr(self.kernel),
            "batch": self.batch,
            "conditional_ess": self.conditional_ess,
            "sweeps": self.sweeps,
        }


def evidence_path(run: Run) -> tuple[Tensor, Tensor]:
    """How many observations had been seen (k,), and the log evidence of just those (k,), nats, from none on.

    Differences of the second are log predictive densities: log p(y_s | y_1:s-1).
    """
    # where observations enter whole, there is no exponent
    run = run.alone("evidence_path")
    exponent = run.trace["exponent"] if "exponent" in run.trace else np.ones(len(run.trace["t"]))
    whole = torch.from_numpy(exponent == 1.0)
    begun = (run.trace["observations"] == 0) & (exponent == 1.0)  # more than once where the run began anew
    whole[: int(np.flatnonzero(begun)[-1])] = False
    seen, log_evidence = (torch.from_numpy(run.trace[name])[whole] for name in ("observations", "log_evidence"))
    return seen.long(), log_evidence


REFERENCES = (cited("chopin2002", "observations one after another"),)
