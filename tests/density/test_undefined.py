"""Trial points at which a law is undefined: they have density zero, they are counted, and starts are held to more."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import motes
from motes import Density, Rng
from motes.density import AMIS, Chains, WasteFree
from motes.errors import MotesError, MotesWarning, NanLogPotential
from motes.kernels import Tally, find_kernel
from motes.laws.approximation import From
from motes.laws.discrete import Discrete
from motes.laws.refusal import refused
from motes.laws.tempered import Tempered

F = torch.float64
ONE = torch.ones((), dtype=F)
TIMES = torch.linspace(0, 1, 12, dtype=F)
SEEN = TIMES.sin() + 0.1 * Rng(7).at("seen").normal((12,))
APART = (TIMES[:, None] - TIMES).square()
X = Rng(7).at("x").normal((30,))
Y = 0.8 * X + 0.6 * Rng(7).at("y").normal((30,))


def process(p):
    """A Gaussian process whose covariance rounds to a singular one where the noise is small."""
    scale, length, noise = (p[k][:, None, None].exp() for k in ("scale", "length", "noise"))
    root = torch.linalg.cholesky(scale**2 * torch.exp(-0.5 * APART / length**2) + noise**2 * torch.eye(12, dtype=F))
    white = torch.linalg.solve_triangular(root, SEEN[:, None].expand(len(root), 12, 1), upper=False)
    return -0.5 * white[..., 0].square().sum(1) - root.diagonal(dim1=1, dim2=2).log().sum(1)


def gaussian_process(**more) -> Density:
    prior = {"scale": Normal(0 * ONE, ONE), "length": Normal(-ONE, ONE), "noise": Normal(-3 * ONE, ONE)}
    return Density(process, prior, vectorised=True, **more)


def correlation(p):
    rho = torch.tanh(p["r"])
    s = torch.sqrt(1 - rho**2)  # 0 from r = 19 on
    return (-0.5 * ((Y - rho[:, None] * X) / s[:, None]).square() - s.log()[:, None]).sum(1)


def walled(**more) -> Density:
    """N(0, 1) in 2 dimensions where |x_0| < 1; not a number elsewhere."""
    prior = Normal(torch.zeros(2, dtype=F), 0.2)
    return Density(lambda x: torch.where(x[:, 0].abs() < 1, 12 * x.square().sum(1), math.nan), prior, **more)


def points(bad: list[int], n: int = 40) -> torch.Tensor:
    z = gaussian_process().sample(Rng(0), n)
    z[bad, 2], z[bad, 1], z[bad, 0] = -60.0, 5.0, 5.0
    return z


@pytest.mark.parametrize("micro_batch", [None, 16])
def test_the_points_that_raise_are_found_and_the_others_keep_their_bits(micro_batch):
    density, z = gaussian_process(micro_batch=micro_batch), points([3, 17, 18, 39])
    state, undefined = density.trial(z, True)
    assert undefined.where.nonzero().flatten().tolist() == [3, 17, 18, 39]
    assert "LinAlgError" in undefined.why() and "noise=-60" in undefined.why()
    good = ~undefined.where
    assert (state["log_likelihood"][~good] == -math.inf).all() and (state["log_prior"][~good] == -math.inf).all()
    assert not state["likelihood_gradient"][~good].any() and torch.isfinite(state["prior_gradient"]).all()
    whole = density.evaluate(torch.where(good[:, None], z, density.sample(Rng(0).at("probe"), 1)), True)
    assert all(torch.equal(state[k][good], whole[k][good]) for k in whole)
    with pytest.raises(NanLogPotential, match=r"raises _LinAlgError .* particles \[3, 17, 18, 39\].*noise=-60"):
        density.evaluate(z)
    assert density.trial(z[:3])[1] is None


@pytest.mark.parametrize("error", [ValueError, np.linalg.LinAlgError, ZeroDivisionError, RuntimeError])
def test_whatever_a_point_may_raise(error):
    def f(x):
        if (x[:, 0] > 4).any():
            raise error("not here")
        return -x.square().sum(1)

    density = Density(f, Normal(torch.zeros(2, dtype=F), ONE), vectorised=True)
    _, undefined = density.trial(torch.tensor([[0.0, 0.0], [5.0, 0.0], [1.0, 0.0]], dtype=F))
    assert undefined.where.tolist() == [False, True, False]


def test_what_is_no_matter_of_points_is_raised():
    broken = []

    def f(x):
        if broken:
            raise broken[0]
        return -x.square().sum(1)

    density, z = Density(f, Normal(torch.zeros(2, dtype=F), ONE), vectorised=True), torch.zeros(5, 2, dtype=F)
    for error in (RuntimeError("a bug"), MotesError("ours"), KeyError("name"), NotImplementedError("never")):
        broken[:] = [error]
        with pytest.raises(MotesError if type(error) is RuntimeError else type(error)) as caught:
            density.trial(z)
        assert error in (caught.value, caught.value.__cause__)


def test_bisection_finds_exactly_the_points():
    z = torch.arange(37.0)[:, None]
    bad, calls = {0, 5, 6, 36}, []

    def f(part):
        calls.append(len(part))
        if bad & {int(v) for v in part[:, 0]}:
            raise ValueError

    assert set(refused(f, z).nonzero().flatten().tolist()) == bad
    assert len(calls) < 2 * len(bad) * 7


def test_discrete_laws_and_other_starts_count_too():
    law = Discrete(lambda x: torch.where(x.sum(1) == 3, math.nan, x.sum(1)), 3)
    _, undefined = law.trial(torch.tensor([[0.0, 1, 1], [1, 1, 1]], dtype=F), True)
    assert undefined.where.tolist() == [False, True] and "[1, 1, 1]" in undefined.why()
    start = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F), 0.1 * torch.eye(2, dtype=F))
    law, z = From(walled(), start), torch.tensor([[0.0, 0.0], [2.0, 0.0], [math.inf, 0.0]], dtype=F)
    state, undefined = law.trial(z, True)
    assert undefined.where.tolist() == [False, True, True]
    assert (state["log_likelihood"][1:] == -math.inf).all() and torch.isfinite(state["likelihood_gradient"]).all()


EVERY = ("hmc", "nuts", "malt", "mams", "mala", "barker", "chees", "random-walk", "slice", "elliptical-slice", "meads")


@pytest.mark.parametrize("name", EVERY)
def test_every_kernel_stays_where_the_law_is_defined_and_counts(name):
    density, kernel = walled(), find_kernel(name)
    z = torch.rand(400, 2, generator=torch.Generator().manual_seed(1), dtype=F) * 1.6 - 0.8
    target = Tempered(density, 1.0)
    parameters = {**kernel.start(2, F)}
    state = kernel.enter(Rng(2), target, density.evaluate(z, kernel.gradient), parameters)
    sweep = kernel.sweep(Rng(3), target, state, parameters)
    assert (sweep.state["position"][:, 0].abs() < 1).all() and torch.isfinite(sweep.acceptance).all()
    assert target.tally().undefined > 0
    if name in ("hmc", "malt", "mams", "chees"):  # a trajectory meets one such point at most
        assert target.tally().undefined <= int(sweep.diverged.sum())


def test_a_run_whose_trajectories_leave_the_support_goes_on():
    """The correlation's map reaches 1 in rounding; the evidence is a quadrature's."""
    density = Density(correlation, {"r": Normal(0 * ONE, ONE)}, vectorised=True)
    r = torch.linspace(-8, 8, 20001, dtype=F)
    exact = float((correlation({"r": r}) + Normal(0 * ONE, ONE).log_prob(r)).logsumexp(0)) + math.log(16 / 20000)
    run = motes.sample(motes.Tempering(density), 256, seed=0, progress=False)
    assert abs(run.log_evidence - exact) < 4.9 * run.log_evidence_se


@pytest.mark.filterwarnings("ignore::motes.errors.MotesWarning")
@pytest.mark.parametrize("model", [WasteFree, AMIS])
def test_a_matrix_that_is_not_positive_definite_ends_no_run(model):
    run = motes.sample(model(gaussian_process()), 64, seed=1, progress=False)
    assert math.isfinite(run.log_evidence)


def test_chains_report_what_they_met():
    with pytest.warns(MotesWarning, match="undefined"):
        run = motes.sample(Chains(walled(), kernel="random-walk", draws=50), 40, seed=0, progress=False)
    assert max(run.trace["undefined"][-5:]) > 0.01
    assert any("undefined" in r and r.doubts for r in run.remarks)
    plain = Density(lambda x: 12 * x.square().sum(1), Normal(torch.zeros(2, dtype=F), 0.2))
    run = motes.sample(Chains(plain, kernel="random-walk", draws=50), 40, seed=0, progress=False)
    assert "undefined" not in run.trace and not any("undefined" in r for r in run.remarks)


def test_nearly_all_is_an_error():
    tally = Tally(undefined=85, why=lambda: "it is NaN or +inf at x=[1, 2]")
    assert tally.told(200) == {"undefined": 85 / 200}
    with pytest.raises(NanLogPotential, match=r"85 trial points of 100 moves: it is NaN .* x=\[1, 2\]"):
        tally.told(100)
    assert Tally().told(100) == {}
