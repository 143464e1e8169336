"""The engine: known answers, algebra, errors, and what a run can be asked."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import motes
from core.toys import Breaks, Flat, Walk, data
from motes.core import smc, weights
from motes.core.estimate.estimate import Estimate
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.run import Result
from motes.core.sample import sample
from motes.errors import AllWeightsZero, MotesError, MotesWarning, NanLogPotential, ShapeError, UnknownName


def test_likelihood_of_a_linear_gaussian_model():
    """The mean of Z_hat / Z over 60 seeds is 1 within 5 standard errors; an error of 4 % would be seen."""
    model = Walk(data(10))
    ratio = torch.tensor(
        [math.exp(sample(model, 2000, seed=s, progress=False).log_evidence - model.log_likelihood()) for s in range(60)]
    )
    se = float(ratio.std()) / math.sqrt(len(ratio))
    assert se < 0.01
    assert abs(float(ratio.mean()) - 1) < 5 * se


class Forgets(Walk):
    """The broken twin: weights are begun anew at each step, as if every step had resampled."""

    def step(self, rng, particles):
        fresh = super().step(rng, particles)
        return Particles(fresh.x, fresh.log_weight - particles.log_weight, fresh.ancestor, fresh.root, fresh.t)


def test_a_model_that_forgets_its_weights_is_noticed():
    model = Forgets(data(10))
    z = [sample(model, 400, seed=s, ess_threshold=0.5, progress=False).log_evidence for s in range(10)]
    assert abs(sum(z) / len(z) - model.log_likelihood()) > 1


def test_one_particle_is_the_plain_sampler():
    model = Walk(data(5))
    run = sample(model, 1, seed=3, progress=False)
    rng = motes.Rng(3)
    x = rng.at("init", step=0).at("x").normal((1,))
    total = model.log_potential(x, 0)
    for t in range(1, 5):
        x = 0.9 * x + rng.at("step", step=t).at("x").normal((1,))
        total = total + model.log_potential(x, t)
    assert torch.equal(run.particles.x, x)
    assert run.log_evidence == pytest.approx(float(total), abs=1e-12)


def test_constant_potentials_leave_the_weights_equal():
    run = sample(Flat(data(9)), 50, seed=0, progress=False)
    assert run.ess == pytest.approx(50, abs=1e-9)
    assert run.log_evidence == pytest.approx(-0.25 * 9, abs=1e-12)
    assert not run.trace["resampled"].any()
    assert torch.equal(run.particles.root, torch.arange(50))


@pytest.mark.parametrize("ess_threshold, expected", [(0.0, 0), (1.0, 5)])
def test_when_is_never_at_zero_and_always_at_one(ess_threshold, expected):
    run = sample(Walk(data(6)), 64, seed=1, ess_threshold=ess_threshold, progress=False)
    assert run.trace["resampled"].sum() == expected


def test_steps_can_be_looked_at():
    seen = [(s.particles.t, len(s.trace["ess"])) for s in smc.steps(Walk(data(4)), 8, seed=0)]
    assert seen == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_the_genealogy_follows_the_roots():
    """Roots composed by hand from each step's ancestors are the roots that the run holds."""
    root = torch.arange(32)
    for state in smc.steps(Walk(data(8), s=0.2), 32, seed=5):
        root = root[state.particles.ancestor]
        assert torch.equal(root, state.particles.root)
    assert len(root.unique()) < 32


def test_nan_names_the_particles_and_the_step_and_the_run_survives():
    with pytest.raises(NanLogPotential, match=r"(?s)\[2, 7\].*t=3") as caught:
        sample(Breaks(math.nan, [2, 7], 3), 10, seed=0, ess_threshold=0, progress=False)
    assert caught.value.run.particles.t == 2
    run = sample(Breaks(math.inf, [4], 3), 10, seed=0, progress=False, throw=False)
    assert run.result is Result.NAN_LOG_POTENTIAL and run.particles.t == 2


@pytest.mark.parametrize("at", [0, 3, 5])
def test_all_weights_zero(at):
    model = Breaks(-math.inf, list(range(10)), at)
    with pytest.raises(AllWeightsZero, match=f"t={at}") as caught:
        sample(model, 10, seed=0, progress=False)
    run = sample(model, 10, seed=0, progress=False, throw=False)
    assert caught.value.run.result is run.result is Result.ALL_WEIGHTS_ZERO
    assert run.log_evidence == -math.inf and run.ess == 0 and run.particles.t == at
    assert math.isnan(run.log_evidence_se)


def test_zero_weights_die_out():
    run = sample(Breaks(-math.inf, [0, 1, 2], 3), 10, seed=0, ess_threshold=1, progress=False)
    assert math.isfinite(run.log_evidence)
    assert run.result is Result.OK


class Wrong(FeynmanKac):
    """Returns what `make` says."""

    def __init__(self, make):
        self.make = make

    def init(self, rng, n):
        return Particles.start(torch.zeros(n), torch.zeros(n, dtype=torch.float64))

    def step(self, rng, particles):
        return self.make(particles)

    def done(self, particles):
        return particles.t >= 2


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda p: p.step(torch.zeros(p.n + 1), torch.zeros(p.n)), "first axis must be the 4"),
        (lambda p: p.step(p.x, torch.zeros(p.n, 1)), "shape \\(4,\\)"),
        (lambda p: p.step({"a": [3.0] * 4}, torch.zeros(p.n)), r"x\['a'\]\[0\] is a float"),
        (lambda p: Particles(p.x, torch.zeros(4), p.ancestor, p.root, 1), "float64"),
        (lambda p: p, "t=0 where t=1"),
    ],
)
def test_a_broken_contract_is_named(make, says):
    with pytest.raises(ShapeError, match=says):
        sample(Wrong(make), 4, seed=0, progress=False)


def test_unknown_names_and_bad_numbers():
    with pytest.raises(UnknownName, match="systematic"):
        sample(Walk(data(3)), 4, seed=0, resampling="sistematic", progress=False)
    with pytest.raises(ValueError, match="ess_threshold"):
        sample(Walk(data(3)), 4, seed=0, ess_threshold=1.5, progress=False)
    with pytest.raises(ValueError, match="at least 1") as caught:
        sample(Walk(data(3)), 0, seed=0, progress=False)
    assert "ess_threshold" not in str(caught.value)
    with pytest.raises(UnknownName, match="perhaps you meant 'systematic'"):
        sample(Walk(data(3)), 4, seed=0, resampling="Sistematic", progress=False)


@pytest.mark.parametrize(
    ("value", "se", "shown"),
    [
        (1.25, 0.5, "1.25 ± 0.5"),
        ([1.0, -2.0], [0.1, math.nan], "[1 ± 0.1, -2 ± ?]"),
        ([[1.0], [2.0]], [[0.1], [0.2]], "[[1 ± 0.1],\n [2 ± 0.2]]"),
        ([0.0] * 20, [1.0] * 20, "[" + "0 ± 1, " * 6 + "..., 0 ± 1] (20 numbers)"),
        ([], [], "[]"),
    ],
)
def test_estimates_are_readable(value, se, shown):
    value, se = torch.tensor(value, dtype=torch.float64), torch.tensor(se, dtype=torch.float64)
    assert se.isnan().any() or repr(Estimate(value, se)) == shown
    assert repr(Estimate(value, se, "two families are too few")) == shown + ", no error bar: two families are too few"


class Named(Walk):
    """A view with a number, a vector and a matrix."""

    def view(self, particles):
        x = particles.x
        return {"a": x, "b": torch.stack([x, 2 * x], 1), "c": x[:, None, None] + torch.arange(6.0).view(2, 3)}


def test_means_go_by_name_and_place():
    run = sample(Named(data(3)), 50, seed=0, progress=False)
    assert torch.equal(run.values("b[1]"), run.values("b")[:, 1])
    assert torch.equal(run.values("c[1, 2]"), run.values("c")[:, 1, 2])
    assert torch.equal(run.values("c[-1]"), run.values("c")[:, 1])
    assert float(run.mean(["a", "b[0]"])[1]) == pytest.approx(float(run.mean("a")))
    for name, said in (("b[2]", "shape (2,)"), ("a[0]", "one number"), ("c[0, 0, 0]", "shape (2, 3)")):
        with pytest.raises(MotesError, match=re.escape(said)):
            run.mean(name)
    with pytest.raises(UnknownName, match="perhaps you meant 'b'; there are: a, b, c"):
        run.mean("B[0]")
    flat = sample(Walk(data(3)), 50, seed=0, progress=False)
    assert float(flat.mean("x")) == float(flat.mean())
    with pytest.raises(UnknownName, match="there are: x"):
        flat.mean("z[0]")


class Remarking(Walk):
    def remarks(self, particles):
        return ["be careful"]


def test_warnings_point_at_the_line_of_the_user():
    with pytest.warns(MotesWarning, match="be careful") as caught:
        sample(Remarking(data(2)), 4, seed=0, progress=False)
    assert caught[0].filename == __file__


def test_a_run_answers():
    model = Walk(data(6))
    run = sample(model, 2000, seed=0, progress=False)
    mean = run.mean()
    by_hand = (run.weight * run.particles.x).sum()
    assert float(mean) == pytest.approx(float(by_hand), abs=1e-12)
    assert 0 < float(mean.se) < 0.2
    assert abs(float(run.draws(2000).mean()) - float(mean)) < 0.05
    assert torch.equal(run.draws(7), run.draws(7))
    assert len(run.trace["ess"]) == 6 and "speed" in run.trace
    assert "lee2018" in motes.cite(run)
    assert "delmoral2004" in motes.cite(run) and "Del Moral" in motes.cite(run, style="text")
    with pytest.raises(ShapeError, match="2000"):
        run.mean(lambda x: x[:3])
    with pytest.raises(MotesError, match="not finite for particles"):
        run.mean(lambda x: x / 0)
    with pytest.raises(MotesError, match="no texts"):
        _ = run.texts
    with pytest.raises(KeyError, match="ess"):
        run.trace["acceptence"]


def test_max_steps_and_callback_stop_early():
    run = sample(Walk(data(9)), 8, seed=0, max_steps=3, progress=False)
    assert run.result is Result.MAX_STEPS and run.particles.t == 3
    run = sample(Walk(data(9)), 8, seed=0, callback=lambda s: s.particles.t == 2, progress=False)
    assert run.result is Result.INTERRUPTED and run.particles.t == 2


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    sample(Walk(data(5)), 16, seed=0, progress=False).draws(4)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("log_weight", [[0.0], [1e300, -math.inf, 3.0], [-math.inf] * 3, [0.1, -700.0, 5.0, 5.0]])
def test_the_summary_of_weights_is_its_parts(log_weight):
    w = torch.tensor(log_weight, dtype=torch.float64)
    parts = [weights.log_mean_exp(w), weights.ess(w), weights.entropy(w), weights.max_weight(w)]
    assert list(weights.summary(w).values()) == pytest.approx(parts, nan_ok=True, rel=0, abs=0)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="Tempering"):
        sample("not a model", 4, seed=0)
    with pytest.raises(TypeError, match="Tempering"):
        next(smc.steps(Walk, 4, seed=0))


@pytest.mark.parametrize("seed", [None, 1.5, "1", True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(TypeError, match="whole number"):
        sample(Walk(data(3)), 4, seed=seed, progress=False)


def test_a_numpy_integer_is_a_seed():
    one, two = (sample(Walk(data(3)), 4, seed=s, progress=False) for s in (5, np.int64(5)))
    assert torch.equal(one.particles.x, two.particles.x) and two.seed == 5


@pytest.mark.parametrize(
    "method, value, said",
    [
        (
            "step",
            (1, 2),
            r"Bad.step must return Particles, as particles.step\(x, log_potential\) makes them, not a tuple",
        ),
        ("step", None, r"not None \(is its `return` missing\?\)"),
        ("init", torch.zeros(8), r"Bad.init must return Particles, as Particles.start\(.*not a Tensor"),
        ("init", None, "Bad.init must return Particles"),
    ],
)
def test_what_a_method_returns_must_be_a_population(method, value, said):
    Bad = type("Bad", (Walk,), {method: lambda self, *arguments: value})
    with pytest.raises(MotesError, match=said):
        sample(Bad(data(3)), 8, seed=0, progress=False)


def test_a_first_weight_of_zero_everywhere_is_told_from_one_that_comes_later():
    coin = motes.Density(lambda p: p["a"] * 0 - math.inf, {"a": torch.distributions.Normal(0.0, 1.0)})
    with pytest.raises(AllWeightsZero, match=r"t=0: the log-likelihood, .* is -inf at all 64 draws of the prior"):
        sample(motes.Tempering(coin), 64, seed=0, progress=False)

    class Late(Walk):
        def log_potential(self, x, t):
            return super().log_potential(x, t) - (math.inf if t == 2 else 0.0)

    with pytest.raises(AllWeightsZero, match="t=2: none satisfies what Late asks"):
        sample(Late(data(4)), 8, seed=0, progress=False)


def test_the_mean_of_named_parameters_is_that_of_each():
    prior = torch.distributions.Normal(0.0, 1.0)
    model = motes.Tempering(motes.Density(lambda p: -(p["a"] ** 2) + p["b"], {"a": prior, "b": prior}))
    run = sample(model, 64, seed=0, progress=False)
    found = run.mean()
    assert found.keys() == {"a", "b"}
    assert all(found[k].value == run.mean(k).value and found[k].se == run.mean(k).se for k in found)
    assert isinstance(sample(Walk(data(3)), 8, seed=0, progress=False).mean(), Estimate)
