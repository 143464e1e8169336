"""The check of models finds each law broken by a model that breaks this one; the enumerator counts right."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from breaks import breaks
from core.test_enumeration import TwoStates
from core.toys import Walk, data
from motes.core.particles import Particles
from motes.errors import MotesError, UnknownName
from motes.testing import LawViolation, check_model, enumerate_runs


def last(particles):
    return particles.x.tolist()


def posterior(model: TwoStates) -> dict[int, float]:
    """By last state its share of the evidence."""
    a = [p * q for p, q in zip(model.start, model.likelihood[0], strict=True)]
    for t in range(1, model.steps):
        a = [sum(a[i] * model.move[i][j] for i in (0, 1)) * model.likelihood[t % 3][j] for j in (0, 1)]
    return dict(enumerate(a))


def check(model: TwoStates, **more):
    truth = math.log(model.evidence())
    return check_model(model, n=2, log_evidence=truth, law=posterior(model), label=last, ess_threshold=1.0, **more)


def test_a_model_that_is_right_passes():
    assert check(TwoStates(2)).keys() == {"address", "weights", "resume", "evidence", "law"}
    assert sum(posterior(TwoStates(3)).values()) == pytest.approx(TwoStates(3).evidence(), abs=1e-14)


class Forgets(TwoStates):
    """The first observation has no part in the weights."""

    def init(self, rng, n):
        return Particles.start(super().init(rng, n).x, torch.zeros(n).double())


class Anew(TwoStates):
    """Weights are begun anew at each step, as if every step had resampled."""

    def step(self, rng, particles):
        after = super().step(rng, particles)
        return Particles.start(after.x, after.log_weight - particles.log_weight).step(after.x, torch.zeros(2).double())


class Remembers(TwoStates):
    """Every other call moves the particles to the other state."""

    calls = 0

    def step(self, rng, particles):
        self.calls += 1
        after = super().step(rng, particles)
        return particles.step((after.x + self.calls) % 2, after.log_weight - particles.log_weight)


class Hides(TwoStates):
    """What a step needs is kept in the model, where a resumed run does not find it."""

    first = 0

    def init(self, rng, n):
        particles = super().init(rng, n)
        self.first = 1 + int(particles.x.sum())
        return particles

    def step(self, rng, particles):
        after = super().step(rng, particles)
        return particles.step(after.x, (after.log_weight - particles.log_weight) * self.first)


@pytest.mark.parametrize(
    "model, law", [(Forgets(2), "evidence"), (Anew(2), "weights"), (Remembers(2), "address"), (Hides(2), "resume")]
)
def test_a_law_that_is_broken_is_named(model, law):
    with breaks(law):
        check(model)


def test_a_factor_that_is_forgotten_is_found_by_the_law_alone():
    with breaks("law"):
        check(Forgets(2), laws=["law"])


class Loud(Walk):
    """Noise that is wider than the law that is weighed."""

    def step(self, rng, particles):
        x = self.a * particles.x + 1.3 * rng.at("x").normal((particles.n,))
        return particles.step(x, self.log_potential(x, particles.t + 1))


def test_models_that_cannot_be_walked_are_run_many_times():
    model = Walk(data(4))
    found = check_model(model, n=200, log_evidence=model.log_likelihood(), runs=100)
    assert found["evidence"] < 4.9
    with breaks("evidence"):
        check_model(Loud(data(4)), n=200, log_evidence=model.log_likelihood(), runs=100)
    with pytest.raises(MotesError, match=r"rng\.normal has more outcomes"):
        check_model(model, log_evidence=0.0, laws=["evidence"])


def test_what_has_no_weight_and_is_found_fails_at_once():
    model = TwoStates(2)
    law = {**posterior(model), 1: 0.0}
    with pytest.raises(LawViolation, match=r"E\[1\] should be 0, and run \d+ has a particle of positive weight"):
        check_model(model, n=20, law=law, label=last, runs=20, laws=["law"])
    assert check_model(model, n=20, law=posterior(model), label=last, runs=100, laws=["law"])["law"] < 4.9
    rare = {0: posterior(model)[0], 1: posterior(model)[1], 2: 1e-4}
    assert check_model(model, n=20, law=rare, label=last, runs=100, laws=["law"])["law"] < 4.9


def test_what_cannot_be_checked_is_said():
    with pytest.raises(UnknownName, match="perhaps you meant 'resume'"):
        check_model(TwoStates(2), laws=["resumed"])
    with pytest.raises(MotesError, match="give law and label"):
        check_model(TwoStates(2), laws=["law"])
    with pytest.raises(MotesError, match="at least 16"):
        check_model(TwoStates(2), log_evidence=0.0, runs=3)


def test_the_enumerator_counts():
    """Two dice by hand: the law of their larger number, with thresholds of uniform numbers among the draws."""

    def larger(rng):
        die = rng.at("die").integers((2,), 6)
        return int(die.max()) + 1 if bool(rng.at("coin").uniform(()) < 0.25) else 0

    law = {}
    for p, value in enumerate_runs(larger):
        law[value] = law.get(value, 0.0) + p
    assert law[0] == pytest.approx(0.75, abs=1e-14)
    assert all(law[k] == pytest.approx(float(Fraction(2 * k - 1, 36 * 4)), abs=1e-14) for k in range(1, 7))


def test_a_number_that_matters_by_its_value_cannot_be_enumerated():
    with pytest.raises(MotesError, match="more than 200 ways"):
        list(enumerate_runs(lambda rng: float(rng.uniform(()))))
