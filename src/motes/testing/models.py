"""Laws of Feynman-Kac models: unbiased weights, and runs that are a function of their seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.resampling import Scheme
from motes.core.sample import resume, sample
from motes.core.smc import State, must_be_model, steps
from motes.errors import AllWeightsZero, MotesError
from motes.rng import Rng
from motes.testing.enumeration import enumerate_runs
from motes.testing.schemes import collapsed
from motes.testing.violation import LawViolation, Z, at_least, chosen, farthest

Label = Callable[[Particles], Sequence[Hashable]]
"""What each particle is an instance of: its state, its text, its path."""

LAWS = ("address", "weights", "resume", "evidence", "law")
STEPS = 10
"""Steps from the start that are taken twice, or from a file."""
FEWEST = 16
"""Independent runs whose spread tells their error."""
SEEN = 30
"""Particles with a label, over all runs, from which the spread of its mean is known."""
EXACT, SINGLE, SHIFT = 1e-10, 1e-6, 1.25


def check_model(
    model: FeynmanKac,
    *,
    n: int = 2,
    log_evidence: float | None = None,
    law: Mapping[Hashable, float] | None = None,
    label: Label | None = None,
    runs: int | None = None,
    resampling: str | Scheme = "systematic",
    ess_threshold: float = 0.5,
    laws: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Check that a model's runs are a function of their seed, and that its weights are right.

    - "address": the initial draw and each step, made twice from the same particles, give the same bits.
    - "weights": log-potentials are added to the log-weights that particles have, and not put in their stead.
    - "resume": each step from a file of the state before gives the bits of the run without a file. The model that goes
      on is a copy that was made before the first run, where `copy.deepcopy` can make one.
    - "evidence" (with `log_evidence`): E[mean weight] is the evidence, at any number of particles.
    - "law" (with `law` and `label`): E[mean of weight x 1{label}] is `law[label]`, the unnormalised target.

    The last two are exact, by a walk through every outcome of a run, for models that draw from finite sets (see
    `enumerate_runs`): keep them as small as two particles and three steps. With `runs` they are tested by means over
    independent runs instead, each of which fails by chance with probability about 1e-6 where weights have no heavy
    tails; an error of 10 standard errors is found for certain. Labels that fewer than 30 particles should have are
    taken together, and one that should have none fails at once. The first three look at the first 10 steps.

    Args:
        model: what is checked.
        n: particles.
        log_evidence: the exact log normaliser, nats.
        law: by label its exact share of the evidence; what is not listed has none.
        label: particles to a label for each.
        runs: independent runs, from `seed` on; None walks through every outcome.
        resampling: as for `motes.sample`.
        ess_threshold: as for `motes.sample`.
        laws: the names of those to check; None is all for which something was given.
        seed: of the runs.

    Returns:
        By law how far it was from its value: standard errors with `runs`, else relative errors.

    Raises:
        LawViolation: a law does not hold; the message says what was expected, what was measured, and where.
        MotesError: with `runs=None`, the model draws what cannot be enumerated.

    >>> import math, torch
    >>> from motes import FeynmanKac, Particles
    >>> from motes.testing import check_model
    >>> class Coins(FeynmanKac):
    ...     # heads weigh 3, tails 1: the evidence of two tosses is 4
    ...     def init(self, rng, n):
    ...         return Particles.start(rng.bernoulli(torch.full((n,), 0.5)), torch.zeros(n).double())
    ...     def step(self, rng, particles):
    ...         heads = rng.bernoulli(torch.full((particles.n,), 0.5))
    ...         return particles.step(heads, torch.where(heads, 3.0, 1.0).double().log())
    ...     def done(self, particles):
    ...         return particles.t == 2
    >>> check_model(Coins(), log_evidence=math.log(4), laws=["evidence"])["evidence"] < 1e-12
    True
    """
    must_be_model(model)
    at_least(1, n=n)
    names = chosen(laws, LAWS, "model")
    given = {"evidence": log_evidence is not None, "law": law is not None and label is not None}
    for name in ("evidence", "law"):
        if laws is not None and name in names and not given[name]:
            raise MotesError(f"to check {name!r} give " + ("log_evidence" if name == "evidence" else "law and label"))
    found: dict[str, float] = {}
    fresh = _copied(model) if "resume" in names else model
    if "address" in names or "weights" in names:
        found |= _steps(model, n, resampling, ess_threshold, names, seed)
    if "resume" in names:
        with TemporaryDirectory() as folder:
            _resumed(model, fresh, n, resampling, ess_threshold, seed, Path(folder) / "run")
        found["resume"] = 0.0
    if log_evidence is not None and "evidence" in names:
        found |= _means(model, n, None, {WHOLE: math.exp(log_evidence)}, runs, resampling, ess_threshold, seed)
    if law is not None and label is not None and "law" in names:
        found |= _means(model, n, label, law, runs, resampling, ess_threshold, seed)
    return found


WHOLE = "the mean weight"


def mean_weights(
    model: FeynmanKac,
    n: int,
    *,
    label: Label | None = None,
    resampling: str | Scheme = "systematic",
    ess_threshold: float = 0.5,
) -> dict[Hashable, float]:
    """By label E[(1/n) sum_i w_i 1{label_i}] over every outcome of a run with `n` particles.

    Summed over all labels that is E[Z_hat]. Runs whose weights all become zero count with their zero.

    Args:
        model: draws from finite sets only, see `enumerate_runs`.
        n: particles.
        label: particles to a label for each; None gives all the same.
        resampling: as for `motes.sample`.
        ess_threshold: as for `motes.sample`.

    Raises:
        MotesError: the model draws what cannot be enumerated.
    """
    total, scheme = dict[Hashable, float](), collapsed(resampling)
    for p, outcome in enumerate_runs(lambda rng: _weights(model, n, label, scheme, ess_threshold, rng)):
        for key, weight in outcome.items():
            total[key] = total.get(key, 0.0) + p * weight
    return total


def _weights(
    model: FeynmanKac, n: int, label: Label | None, resampling: str | Scheme, ess_threshold: float, seed: int | Rng
) -> dict[Hashable, float]:
    """By label the mean weight of one run."""
    last: Any = None
    try:
        for state in steps(model, n, seed=seed, resampling=resampling, ess_threshold=ess_threshold):
            last = state.particles
    except AllWeightsZero:
        return {}
    out: dict[Hashable, float] = {}
    for key, weight in zip(label(last) if label else [WHOLE] * n, (last.log_weight.exp() / n).tolist(), strict=True):
        out[key] = out.get(key, 0.0) + weight
    return out


# ------------------------------------------------------------------------------------------------ laws


def _means(
    model: FeynmanKac,
    n: int,
    label: Label | None,
    expected: Mapping[Hashable, float],
    runs: int | None,
    resampling: str | Scheme,
    ess_threshold: float,
    seed: int,
) -> dict[str, float]:
    name, law = type(model).__name__, "evidence" if label is None else "law"
    if runs is None:
        found = mean_weights(model, n, label=label, resampling=resampling, ess_threshold=ess_threshold)
        scale = sum(expected.values())
        off = {key: abs(found.get(key, 0.0) - expected.get(key, 0.0)) / scale for key in {**expected, **found}}
        key = max(off, key=lambda k: off[k])
        worst, allowed = off[key], EXACT
        said = f"E[{key}] is {found.get(key, 0.0):.10g} and should be {expected.get(key, 0.0):.10g}"
        where = f"over every outcome of runs with {n} particles"
        where += ", as rounding to float32 makes it" if worst < SINGLE else ""
    else:
        if runs < FEWEST:
            raise MotesError(f"runs must be at least {FEWEST}, so that their spread tells their error, not {runs}")
        each = [_weights(model, n, label, resampling, ess_threshold, seed + j) for j in range(runs)]
        worst, said = _from_runs(each, expected, n)
        allowed, where = Z, f"over {runs} runs of {n} particles, seeds {seed} to {seed + runs - 1}"
    if worst > allowed:
        raise LawViolation(
            law,
            f"{name} has wrong weights: {said}, {where}; {worst:.3g} off, {allowed:g} are allowed. Is every factor of "
            "the target, and every density of a proposal, in a log-potential once?",
        )
    return {law: worst}


def _from_runs(
    each: Sequence[Mapping[Hashable, float]], expected: Mapping[Hashable, float], n: int
) -> tuple[float, str]:
    """How far mean weights of independent runs are off; labels that few particles have are taken together."""
    for key in {key for one in each for key, weight in one.items() if weight > 0}:
        if not expected.get(key):
            j = next(j for j, one in enumerate(each) if one.get(key))
            return math.inf, f"E[{key}] should be 0, and run {j} has a particle of positive weight there"
    often, rest = SEEN * sum(expected.values()) / (n * len(each)), "what is rare"
    values: dict[str, Tensor] = {}
    truth: dict[str, float] = {}
    for key, value in expected.items():
        name = str(key) if value > often else rest
        found = torch.tensor([one.get(key, 0.0) for one in each], dtype=torch.float64)
        values[name], truth[name] = values.get(name, 0.0) + found, truth.get(name, 0.0) + value
    if truth.get(rest, often) < often:
        del values[rest]
    return farthest({name: (values[name], truth[name]) for name in values})


def _steps(
    model: FeynmanKac, n: int, resampling: str | Scheme, ess_threshold: float, chosen: set[str], seed: int
) -> dict[str, float]:
    """Each of the first steps twice from the same particles, and from particles with other weights."""
    name, rng = type(model).__name__, Rng(seed)
    first = rng.at("init", step=0)
    if "address" in chosen:
        _same(model.init(first, n), model.init(first, n), "address", f"{name}.init, called twice")
    for state in steps(model, n, seed=rng, resampling=resampling, ess_threshold=ess_threshold):
        before = state.particles
        if before.t >= STEPS or model.done(before) or bool((before.log_weight == -math.inf).all()):
            break
        at = rng.at("again", step=before.t + 1)
        after = model.step(at, before)
        if "address" in chosen:
            _same(after, model.step(at, before), "address", f"{name}.step, called twice to t={after.t}")
        if "weights" in chosen:
            other = model.step(at, replace(before, log_weight=before.log_weight + SHIFT)).log_weight - SHIFT
            bad = torch.nonzero(~torch.isclose(other, after.log_weight, 1e-6, 1e-6))[:, 0]
            if len(bad):
                i = int(bad[0])
                raise LawViolation(
                    "weights",
                    f"{name}.step to t={after.t} leaves particle [{i}] with the log-weight "
                    f"{float(other[i] + SHIFT):.6g} where it came with {SHIFT} more than when it was left with "
                    f"{float(after.log_weight[i]):.6g}: add log-potentials to the weights that are there, as "
                    f"particles.step does; n = {n}, seed {seed}",
                )
    return {law: 0.0 for law in ("address", "weights") if law in chosen}


def _same(one: Particles, two: Particles, law: str, what: str) -> None:
    """Both populations have the same bits; leaves that no file holds are passed over."""
    for part in ("x", "shared", "log_weight"):
        if not tree.equal(getattr(one, part), getattr(two, part)):
            raise LawViolation(
                law,
                f"{what}, gives two different values of `{part}`: draw from the rng that is handed in, keep nothing in "
                "the model that a step changes, and write to no tensor of the particles",
            )


def _copied(model: FeynmanKac) -> FeynmanKac:
    """A copy of the model, or itself if it holds what cannot be copied."""
    try:
        return deepcopy(model)
    except (TypeError, ValueError, RuntimeError):
        return model


def resumed(
    model: FeynmanKac,
    fresh: FeynmanKac,
    n: int,
    seed: int,
    path: Path,
    *,
    resampling: str | Scheme = "systematic",
    ess_threshold: float = 0.5,
    most: int | None = None,
) -> tuple[int, dict[int, list[str]]]:
    """The number of steps, and by time what differs after those that were taken from a file of the state before.

    Args:
        fresh: the model that goes on from files.
        path: where the file is written.
        most: steps from the start; None is all.
    """
    whole: list[State] = []
    about: dict[str, Any] = {"progress": False}
    how: dict[str, Any] = {"seed": seed, "resampling": resampling, "ess_threshold": ess_threshold, **about}
    sample(model, n, callback=whole.append, max_steps=most, **how)
    wrong: dict[int, list[str]] = {}

    def compare(state: State) -> None:
        parts = ("x", "shared", "log_weight", "ancestor", "root")
        one, two = state.particles, whole[state.particles.t].particles
        if found := [k for k in parts if not tree.equal(getattr(one, k), getattr(two, k))]:
            wrong[one.t] = found

    sample(model, n, checkpoint=path, max_steps=0, **how)
    for t in range(1, len(whole)):
        resume(path, fresh, max_steps=t, callback=compare, **about)
    return len(whole) - 1, wrong


def _resumed(
    model: FeynmanKac,
    fresh: FeynmanKac,
    n: int,
    resampling: str | Scheme,
    ess_threshold: float,
    seed: int,
    path: Path,
) -> None:
    how: dict[str, Any] = {"resampling": resampling, "ess_threshold": ess_threshold, "most": STEPS}
    _, wrong = resumed(model, fresh, n, seed, path, **how)
    if wrong:
        t = min(wrong)
        raise LawViolation(
            "resume",
            f"{type(model).__name__} goes on from a file of t={t - 1} to another {' and '.join(wrong[t])} at t={t} "
            f"than without one, n = {n}, seed {seed}: what a step needs belongs into x or shared, not into the model",
        )
