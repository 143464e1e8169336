"""SMC^2: parameters of a state-space model as particles, each of which carries a particle filter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.core.cite import cited
from motes.core.files.resuming import must_agree
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.weights import normalise
from motes.errors import FileError, MotesError
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.kernel import accepted, select
from motes.kernels.stationarity.drift import CERTAIN, FEWEST, drift, effective_families, lagged, median
from motes.laws.parameters import Parameters, Values
from motes.rng import Rng
from motes.statespace.particle_filter import InnerFilter

PROBED = 64
"""Parameters at which two new filters each tell how much log-likelihood estimates vary."""
QUIET = 1.0
"""The variance of these estimates above which filters are enlarged: about what is best for Metropolis moves."""
QUARTILES = 1.349
"""Between the quartiles of a normal law, in standard deviations."""


@dataclass(frozen=True)
class SMC2(FeynmanKac):
    """SMC^2: follows the posterior of the parameters of a state-space model as observations come in.

    Each of N parameters, drawn from the prior, carries a particle filter of N_x states. Step t multiplies its weight
    by the filter's estimate of p(y_t | y_1:t-1, theta), so the mean weight estimates p(y_1:t) at every t. Where the
    population has been resampled it is moved by particle marginal Metropolis-Hastings: a random walk on the scale of
    the population proposes parameters, a new filter runs over all observations so far, and the ratio of prior times
    estimated likelihood decides. Before a move, pairs of new filters at some of the parameters tell the variance of the
    log-likelihood estimates. Where it is above 1, or where fewer than `acceptance` of the proposals are then accepted,
    the estimates are too noisy: every filter is exchanged for a new one, of the size that the variance asks for or
    else of twice the size, and the weights take the ratio of the new estimate to the old one.

    The noise of the filters biases nothing: the estimated likelihood is unbiased, so the parameters follow the exact
    posterior, and for a fixed size and scale E[Z_hat] = Z for any N and N_x. The scale and the size are chosen from
    the particles, which biases the evidence by a term of order 1/N. More data can come later, as in `DataAnnealing`.

    References:
        Chopin, Jacob & Papaspiliopoulos (2013), SMC^2: an efficient algorithm for sequential analysis of state-space
        models, JRSS B 75(3), sections 3.1 and 3.6.
        Andrieu, Doucet & Holenstein (2010), Particle Markov chain Monte Carlo methods, JRSS B 72(3).
        Doucet, Pitt, Deligiannidis & Kohn (2015), Efficient implementation of Markov chain Monte Carlo when using an
        unbiased likelihood estimator, Biometrika 102(2) (the variance).

    Args:
        filter: the observations and how to estimate their likelihood, see `InnerFilter`.
        prior: a `torch.distributions` object over a flat vector, or a dict of them by name.
        size: states of each filter at the start, N_x.
        sweeps: Metropolis proposals a move, each of which runs the filters over all observations so far.
        acceptance: the mean acceptance of a move below which the filters are doubled, in [0, 1).
        largest: the most states of a filter; a run that wanted more says so in its remarks.
        dtype: of the parameters.

    >>> import torch, motes
    >>> from motes.statespace.particle_filter import BootstrapFilter
    >>> from motes.statespace.smc2 import SMC2
    >>> walk = BootstrapFilter(
    ...     lambda rng, theta, size: rng.normal((len(theta["rho"]), size)),
    ...     lambda rng, theta, x, t: theta["rho"][:, None] * x + rng.normal(tuple(x.shape)),
    ...     lambda theta, x, y, t: -0.5 * (y - x).square(),
    ...     torch.tensor([0.3, 1.0, 0.2]),
    ... )
    >>> model = SMC2(walk, {"rho": torch.distributions.Uniform(-1.0, 1.0)}, size=32)
    >>> run = motes.sample(model, 64, seed=0, progress=False)
    >>> run.view["rho"].shape, run.trace["observations"].tolist()
    (torch.Size([64]), [0.0, 1.0, 2.0, 3.0])
    """

    filter: InnerFilter
    prior: Distribution | Mapping[str, Distribution]
    _: KW_ONLY
    size: int = 64
    sweeps: int = 3
    acceptance: float = 0.2
    largest: int = 4096
    dtype: torch.dtype = torch.float64
    parameters: Parameters = field(init=False, repr=False, compare=False)

    quantity: ClassVar[str] = "log evidence"
    references = (
        cited("chopin2013", "parameters that carry particle filters"),
        cited("andrieu2010", "moves of the parameters"),
        cited("doucet2015", "sizes of the filters"),
    )

    def __post_init__(self) -> None:
        if min(self.size, self.sweeps) < 1 or self.largest < self.size or not 0 <= self.acceptance < 1:
            raise MotesError(
                "need size >= 1, sweeps >= 1, largest >= size and acceptance in [0, 1), not "
                f"size={self.size}, sweeps={self.sweeps}, largest={self.largest}, acceptance={self.acceptance}"
            )
        object.__setattr__(self, "parameters", Parameters(self.prior, self.dtype))

    # ---------------------------------------------------------------- the three methods

    def init(self, rng: Rng, n: int) -> Particles:
        z = self.parameters.sample(rng.at("prior"), n)
        flat = torch.zeros(n, dtype=torch.float64)
        inner = self.filter.start(rng.at("filter"), self.parameters.constrain(z)[0], self.size)
        x = {"position": z, "log_prior": self._log_prior(z), "log_likelihood": flat, "inner": inner}
        scale = torch.ones(2, z.shape[1], dtype=z.dtype)
        shared = {"seen": 0, "size": self.size, "fresh": False, "stuck": 0, "unsettled": 0, "scale": scale}
        shared["data"] = self.filter.fingerprint(0)
        return Particles.start(x, flat, shared=shared, info={"observations": 0, "size": self.size})

    def resampled(self, rng: Rng, scheme: Scheme, particles: Particles) -> Particles:
        children = super().resampled(rng, scheme, particles)
        return replace(children, shared={**particles.shared, "fresh": True})

    def step(self, rng: Rng, particles: Particles) -> Particles:
        shared, x, info = particles.shared, particles.x, {}
        potential, seen = torch.zeros_like(particles.log_weight), shared["seen"]
        if shared["fresh"] and seen > 0:
            weight = normalise(particles.log_weight)
            shared = {**shared, "scale": fit_scale(x["position"], weight, "auto", shared["scale"])}
            noise = info["noise"] = self._noise(rng.at("noise"), x, shared)
            if noise > QUIET and shared["size"] < self.largest:
                shared = {**shared, "size": self._larger(shared["size"], noise)}
                x, potential = self._exchange(rng.at("enlarge"), x, shared)
            old = x
            x, info["acceptance"] = self._move(rng.at("move"), x, shared)
            if effective_families(particles.ancestor, weight) > FEWEST:
                middle = median(old)
                found = drift(_watched(old, middle), _watched(x, middle), weight, particles.ancestor)
                shared = {**shared, "unsettled": shared["unsettled"] + (found.largest > CERTAIN)}
            if info["acceptance"] < self.acceptance:
                if 2 * shared["size"] <= self.largest:
                    shared = {**shared, "size": 2 * shared["size"]}
                    x, more = self._exchange(rng.at("exchange"), x, shared)
                    potential = potential + more
                else:
                    shared = {**shared, "stuck": shared["stuck"] + 1}
        theta = self.parameters.constrain(x["position"])[0]
        inner, increment = self.filter.step(rng.at("filter"), theta, x["inner"], seen)
        x = {**x, "log_likelihood": x["log_likelihood"] + increment, "inner": inner}
        data = self.filter.fingerprint(seen + 1)
        shared = {**shared, "seen": seen + 1, "fresh": False, "data": data}
        info |= {"observations": seen + 1, "size": shared["size"]}
        return particles.step(x, potential + increment, shared=shared, info=info)

    def done(self, particles: Particles) -> bool:
        return particles.shared["seen"] >= self.filter.length

    def continues(self, particles: Particles) -> bool:
        """More observations have come than the particles have seen."""
        return not self.done(particles)

    def remarks(self, particles: Particles) -> list[str]:
        stuck, unsettled = particles.shared["stuck"], particles.shared["unsettled"]
        said: list[str] = []
        if unsettled:
            said.append(
                lagged(f"in {unsettled} moves", "the data", "Take more `sweeps`, more particles or a better filter")
            )
        if stuck:
            said.append(
                f"in {stuck} move{'s' * (stuck > 1)} fewer than {self.acceptance:.0%} of the proposals were accepted, "
                f"and filters of {particles.shared['size']} states may not be doubled: parameters have hardly moved, "
                "and means and error bars may be wrong. Give a larger `largest`, a better filter or more `sweeps`"
            )
        return said

    # ---------------------------------------------------------------- parts of a step

    def _move(self, rng: Rng, x: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """Particle marginal Metropolis-Hastings, and its mean acceptance."""
        rate, step = 0.0, 2.38 / math.sqrt(self.parameters.dim)
        for k in range(self.sweeps):
            here = rng.at(f"sweep-{k}")
            z = x["position"]
            noise = here.at("proposal").normal(tuple(z.shape), dtype=z.dtype)
            there = z + step * scaled(noise, shared["scale"])
            prior = self._log_prior(there)
            # filters are run at legal parameters only
            legal = torch.where((prior > -math.inf)[:, None], there, z)
            theta = self.parameters.constrain(legal)[0]
            inner, likelihood = self.filter.run(here.at("run"), theta, shared["size"], shared["seen"])
            ratio = prior + likelihood - x["log_prior"] - x["log_likelihood"]
            probability, accept = accepted(here, ratio)
            new = {"position": there, "log_prior": prior, "log_likelihood": likelihood}
            x = {**select(accept, new, x), "inner": _chosen(accept, inner, x["inner"])}
            rate += float(probability.mean()) / self.sweeps
        return x, rate

    def _noise(self, rng: Rng, x: dict[str, Any], shared: dict[str, Any]) -> float:
        """The variance of the log-likelihood estimates at the same parameters, from two new filters for some."""
        theta = self.parameters.constrain(x["position"][:PROBED])[0]
        first, second = (
            self.filter.run(rng.at("probe", inner=k), theta, shared["size"], shared["seen"])[1] for k in range(2)
        )
        apart = (first - second)[torch.isfinite(first) & torch.isfinite(second)]
        if len(apart) < len(first) / 2:
            return math.inf
        low, high = apart.quantile(torch.tensor([0.25, 0.75], dtype=apart.dtype)).tolist()
        return ((high - low) / QUARTILES) ** 2 / 2

    def _larger(self, size: int, noise: float) -> int:
        """The size, a power of 2 times the one before, at which the variance should be `QUIET` at most."""
        while noise > QUIET and 2 * size <= self.largest:
            size, noise = 2 * size, noise / 2
        return size

    def _exchange(self, rng: Rng, x: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
        """New filters of another size, and what that adds to the log-weights: new minus old log-likelihood."""
        theta = self.parameters.constrain(x["position"])[0]
        inner, likelihood = self.filter.run(rng, theta, shared["size"], shared["seen"])
        return {**x, "log_likelihood": likelihood, "inner": inner}, likelihood - x["log_likelihood"]

    def _log_prior(self, z: Tensor) -> Tensor:
        """(N,) the prior's log-density as one of z, -inf where z overflows."""
        values, jacobian, inside = self.parameters.constrain(z)
        prior = self.parameters.log_prior(values).to(torch.float64)
        prior = prior if jacobian is None else prior + jacobian
        return prior if inside is None else torch.where(inside, prior, -math.inf)

    # ---------------------------------------------------------------- what a run shows

    def view(self, particles: Particles) -> Values:
        return self.parameters.constrain(particles.x["position"])[0]

    def restore(self, particles: Particles) -> Particles:
        """The particles, if the observations that they have seen are still the first ones, under the same prior.

        Raises:
            FileError: they are not.
        """
        seen, now = particles.shared["seen"], self._log_prior(particles.x["position"])
        if seen > self.filter.length or self.filter.fingerprint(seen) != particles.shared["data"]:
            raise FileError(f"the {seen} observations that the run has seen are not the first ones of this model")
        must_agree("log_prior", now, particles.x["log_prior"], "the prior that began it", rtol=1e-4, atol=1e-4)
        return particles

    def order(self, particles: Particles) -> Tensor:
        x = particles.x
        return x["position"][:, 0] if self.parameters.dim == 1 else x["log_likelihood"]

    def progress(self, particles: Particles) -> float:
        return particles.shared["seen"] / self.filter.length


def _watched(x: dict[str, Any], middle: Tensor) -> Tensor:
    """(N, 2 d + 1) what must not drift: parameters, their distances from the `middle` (d,), the log-density."""
    z, log_density = x["position"].to(torch.float64), x["log_prior"] + x["log_likelihood"]
    return torch.cat([z, (z - middle).abs(), log_density.nan_to_num(neginf=0.0)[:, None]], 1)


def _chosen(accept: Tensor, new: Any, old: Any) -> Any:
    """The tree `new` where `accept` (N,) is true, `old` elsewhere."""
    if isinstance(new, dict):
        return {k: _chosen(accept, v, old[k]) for k, v in new.items()}
    if isinstance(new, (tuple, list)):
        return type(new)(_chosen(accept, a, b) for a, b in zip(new, old, strict=True))
    return torch.where(accept.view(-1, *[1] * (new.ndim - 1)), new, old)
