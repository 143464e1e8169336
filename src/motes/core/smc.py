"""The particle engine: resample if the effective sample size fell, move, reweight, record.

`advance` is the algorithm, `steps` repeats it and can be looked at between steps, `motes.sample` (core/sample.py) runs
it to the end with a progress bar and checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral

import torch

from motes.core.history.genealogy import Genealogy
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme, find_scheme
from motes.core.trace import Trace, row
from motes.core.weights import check_log_weight
from motes.errors import AllWeightsZero, MotesError, ShapeError, WrongType, plural
from motes.rng import Rng
from motes.rng.seed import seeded


@dataclass(frozen=True)
class State:
    """Where a run stands: the population, who descends from whom, and what each step had to say.

    A state is never changed by what comes after it, so that it can be kept, and an interrupt leaves the last one whole.
    """

    particles: Particles
    genealogy: Genealogy
    trace: Trace
    replica: int = 0
    """Which of the independent populations of a run it is."""


def advance(
    model: FeynmanKac, rng: Rng, scheme: Scheme, ess_threshold: float, particles: Particles
) -> tuple[Particles, bool]:
    """One step: resample if the effective sample size is at most a part of N, then let the model move and reweight.

    Returns:
        The population at t + 1, and whether it was resampled.
    """
    t = particles.t + 1
    resample = model.must_resample(particles)
    if resample is None:
        resample = particles.ess <= ess_threshold * particles.n or ess_threshold >= 1
    if resample:
        parents = model.resampled(rng.at("resample", step=t), scheme, particles)
    else:
        parents = particles.kept()
    children = returned(model.step(rng.at("step", step=t), parents), model, "step")
    checked(children, t, type(model).__name__)
    if model.restarted(children):
        own = torch.arange(children.n)
        return replace(children, ancestor=own, root=own), False
    return replace(children, ancestor=parents.ancestor, root=parents.root), resample


def returned(value: object, model: FeynmanKac, method: str) -> Particles:
    """What a method of the model returned, if that is a population.

    Raises:
        MotesError: it is none.
    """
    if isinstance(value, Particles):
        return value
    how = "particles.step(x, log_potential)" if method == "step" else "Particles.start(x, log_weight)"
    what = "None (is its `return` missing?)" if value is None else f"a {type(value).__name__}"
    raise MotesError(f"{type(model).__name__}.{method} must return Particles, as {how} makes them, not {what}")


def checked(particles: Particles, t: int, model: str) -> None:
    """The contract holds after a step to time `t`: the right time, and no log-weight NaN or +inf."""
    if particles.t != t:
        raise ShapeError(
            f"{model} returned particles with t={particles.t} where t={t} was due; use particles.step(...)"
        )
    check_log_weight(particles.log_weight, t, model)


def must_be_model(model: object) -> None:
    """A TypeError for what the engine cannot run."""
    if not isinstance(model, FeynmanKac):
        what = f"the class {model.__name__} itself" if isinstance(model, type) else f"a {type(model).__name__}"
        raise WrongType(
            f"a model to sample is a FeynmanKac, and this is {what}; a Density is sampled by wrapping it: "
            "motes.Tempering(density)"
        )


def alive(particles: Particles, model: FeynmanKac) -> None:
    """Raise AllWeightsZero unless some weight is positive."""
    if particles.log_weight.max() == -float("inf"):
        name, n, advice = type(model).__name__, particles.n, model.advice(particles)
        why = f"none satisfies what {name} asks. {advice}"
        whole, draws = (
            ("the only particle has", "the draw") if n == 1 else (f"all {n} particles have", f"all {n} draws")
        )
        if particles.t == 0 and advice == FeynmanKac.advice(model, particles):
            why = (
                f"the log-likelihood, or the first log-potential of {name}, is -inf at {draws} of the prior, or "
                "initial law. Evaluate it at a point where it must be finite, to tell a slip from a narrow likelihood; "
                "for a narrow one begin from a law that overlaps with it, or use more particles"
            )
        raise AllWeightsZero(f"{whole} weight zero at t={particles.t}: {why}")


def steps(
    model: FeynmanKac,
    n: int,
    *,
    seed: int | Rng,
    resampling: str | Scheme = "systematic",
    ess_threshold: float = 0.5,
    start: State | None = None,
) -> Iterator[State]:
    """Run `model` with `n` particles, yielding the state after the initial draw and after every step.

    Args:
        seed: the run is a function of it; or an `Rng`, to put another source in its place.
        resampling: the name of a scheme, see `motes.core.resampling.schemes`.
        ess_threshold: resample once the effective sample size is at most this part of n; 0 is never, 1 at every step.
        start: continue from here instead of from the initial law.

    Raises:
        NanLogPotential: a log-weight is NaN or +inf; the message names the particles and the step.
        AllWeightsZero: no particle has a positive weight; the state, whose log evidence is -inf, is yielded first.
    """
    must_be_model(model)
    scheme, name = find_scheme(resampling), type(model).__name__
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise WrongType(f"n, the number of particles, must be a whole number, not {n!r}")
    if n < 1:
        raise MotesError(f"n, the number of particles, must be at least 1, not {n}")
    if isinstance(ess_threshold, str) or not 0 <= ess_threshold <= 1:
        raise MotesError(f"ess_threshold must lie in [0, 1], not {ess_threshold!r}")
    rng = seeded(seed)
    state, clock = start, time.perf_counter()
    if state is None:
        particles = returned(model.init(rng.at("init", step=0), n), model, "init")
        if particles.n != n:
            raise ShapeError(f"{name}.init was asked for {plural(n, 'particle')} and returned {particles.n}")
        checked(particles, 0, name)
        trace = Trace([row(particles, False, time.perf_counter() - clock)])
        state = State(particles, Genealogy.start(n), trace)
        yield state
    alive(state.particles, model)
    while not model.done(state.particles):
        clock = time.perf_counter()
        particles, resampled = advance(model, rng, scheme, ess_threshold, state.particles)
        genealogy = state.genealogy.renewed() if model.restarted(particles) else state.genealogy
        by = state.particles.log_weight if model.by_weight else torch.zeros_like(state.particles.log_weight)
        genealogy = genealogy.after(particles.t, particles.ancestor, resampled, by)
        trace = state.trace.plus(row(particles, resampled, time.perf_counter() - clock))
        state = State(particles, genealogy, trace)
        yield state
        alive(particles, model)
