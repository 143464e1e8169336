"""Starting from a fit: Laplace and Pathfinder on closed forms, and an evidence that no start changes."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Beta, MultivariateNormal, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform

import motes
from motes.density import Tempering
from motes.errors import MotesError, NanLogPotential, ShapeError
from motes.laws import Density
from motes.laws.approximation import Flow, From
from motes.laws.fits.laplace import Laplace
from motes.laws.fits.lbfgs import climb
from motes.laws.fits.pathfinder import Pathfinder

Z = 4.9  # two-sided level 1e-6
F = torch.float64
NORMAL = Normal(torch.zeros(3, dtype=F), 1.0)


def gaussian() -> tuple[Density, float, torch.Tensor, torch.Tensor]:
    """A correlated Gaussian posterior in 3 dimensions: the density, log evidence, mean and covariance."""
    a = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 0.7]], dtype=F)
    noise, y = 0.3 * a @ a.mT, torch.tensor([1.0, -0.5, 2.0], dtype=F)
    p = torch.linalg.inv(noise)
    constant = -0.5 * float(torch.logdet(noise)) - 1.5 * math.log(2 * math.pi)
    density = Density(lambda x: -0.5 * (((x - y) @ p) * (x - y)).sum(-1) + constant, NORMAL, vectorised=True)
    covariance = torch.linalg.inv(p + torch.eye(3, dtype=F))
    whole = MultivariateNormal(torch.zeros(3, dtype=F), noise + torch.eye(3, dtype=F))
    return density, float(whole.log_prob(y)), covariance @ p @ y, covariance


def banana() -> tuple[Density, float]:
    """Prior N(0, I) in two dimensions, likelihood N(1 | x_2 + x_1^2, 0.2^2); the evidence by quadrature."""
    grid = torch.linspace(-6, 6, 1501, dtype=F)
    x = torch.cartesian_prod(grid, grid)

    def log_likelihood(x):
        return -0.5 * ((1 - x[:, 1] - x[:, 0].square()) / 0.2).square()

    prior = Normal(torch.zeros(2, dtype=F), 1.0)
    log_p = log_likelihood(x) + prior.log_prob(x).sum(1)
    return Density(log_likelihood, prior, vectorised=True), float(log_p.logsumexp(0)) + 2 * math.log(12 / 1500)


def test_laplace_is_exact_for_a_gaussian():
    density, truth, mean, covariance = gaussian()
    mixture, log_evidence = Laplace().fit(density, motes.Rng(1))
    assert len(mixture.weight) == 1 and log_evidence == pytest.approx(truth, abs=1e-6)
    torch.testing.assert_close(mixture.location[0], mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixture.factor[0] @ mixture.factor[0].mT, covariance, atol=1e-7, rtol=0)


def test_laplace_in_unconstrained_parameters():
    """Beta(5, 8) posterior: in z = logit p the mode is log(5 / 8), and minus the second derivative 13 p (1 - p)."""
    density = Density(lambda v: 4 * v["p"].log() + 7 * (-v["p"]).log1p(), {"p": Beta(torch.ones((), dtype=F), 1.0)})
    mixture, _ = Laplace().fit(density, motes.Rng(0))
    assert float(mixture.location) == pytest.approx(math.log(5 / 8), abs=1e-5)
    assert float(mixture.factor) == pytest.approx((13 * 5 / 13 * 8 / 13) ** -0.5, rel=1e-5)


def test_laplace_finds_two_modes_and_their_masses():
    def log_likelihood(x):
        parts = [math.log(w) - 0.5 * ((x - m) / 0.1).square().sum(-1) for w, m in ((0.7, 1.0), (0.3, -1.0))]
        return torch.logaddexp(*parts)

    density = Density(log_likelihood, Normal(torch.zeros(2, dtype=F), 1.0), vectorised=True)
    mixture, log_evidence = Laplace(starts=20).fit(density, motes.Rng(0))
    assert sorted(round(v, 4) for v in mixture.weight.tolist()) == [0.3, 0.7]
    assert log_evidence == pytest.approx(2 * math.log(0.1 / math.sqrt(1.01)) - 1 / 1.01, abs=1e-3)


def test_pathfinder_bounds_are_the_evidence_of_a_gaussian():
    """With as many pairs as dimensions and more H becomes exact, and every draw's log p - log q is log Z."""
    density, truth, mean, covariance = gaussian()
    found = Pathfinder(paths=6, history=12).fit(density, motes.Rng(2))
    assert (found.bound - truth).abs().max() < 0.05
    assert (found.mixture.location - mean).abs().max() < 0.02
    assert (found.mixture.factor @ found.mixture.factor.mT - covariance).abs().max() < 0.05
    assert (found.log_weight - truth).abs().max() < 0.5


def test_the_bound_is_a_bound():
    density, truth = banana()
    found = Pathfinder(paths=6, draws=400).fit(density, motes.Rng(2))
    assert truth - 3 < found.bound.max() < truth + 0.2
    assert found.mixture.location[:, 0].min() < 0 < found.mixture.location[:, 0].max()  # both arms


def test_climbs_never_go_down_and_end_at_a_mode():
    density, _ = banana()
    z = density.sample(motes.Rng(3), 20)
    places = list(climb(density, z, 200, 6))
    values = torch.stack([p.value for p in places])
    assert (values.diff(dim=0) >= 0).all() and len(places) < 100
    assert places[-1].gradient.abs().max() < 1e-4
    for p in places:  # positive definite all the way
        assert (torch.linalg.eigvalsh(p.inverse) > 0).all()


def starts(density: Density):
    mixture, _ = Laplace(freedom=8.0, inflate=1.5).fit(density, motes.Rng(0))
    path = Pathfinder(paths=6, freedom=8.0, inflate=1.5).fit(density, motes.Rng(0)).mixture
    wide = MultivariateNormal(torch.zeros(2, dtype=F), 1.5 * torch.eye(2, dtype=F))
    shift = torch.tensor([0.2, -0.3], dtype=F)
    flow = Flow(2, lambda u: 1.3 * u + shift, lambda z: Normal(shift, 1.3).log_prob(z).sum(1))
    return {"laplace": mixture, "pathfinder": path, "torch": wide, "flow": flow}


def off(model, truth: float, n: int, seeds: int) -> float:
    found = [motes.sample(model, n, seed=s, progress=False).log_evidence for s in range(seeds)]
    ratio = np.exp(np.array(found) - truth)
    return abs(ratio.mean() - 1) / (ratio.std(ddof=1) / math.sqrt(seeds))


@pytest.mark.parametrize(
    ("which", "share"), [("laplace", 0.0), ("laplace", 0.1), ("pathfinder", 0.0), ("torch", 0.0), ("flow", 0.0)]
)
def test_the_evidence_does_not_depend_on_the_start(which, share):
    """8 runs of relative spread below 0.2: a bias of 0.35 would be seen."""
    density, truth = banana()
    law = From(density, starts(density)[which], share=share)
    assert off(Tempering(law, kernel="random-walk"), truth, 64, 8) < Z


def test_a_start_whose_density_is_not_divided_out_is_noticed(monkeypatch):
    density, truth = banana()
    law = From(density, starts(density)["torch"])
    right = From._over

    def wrong(self, z, state, gradient):
        over, bad = right(self, z, state, gradient)
        return {**over, "log_likelihood": state["log_likelihood"]}, bad

    monkeypatch.setattr(From, "_over", wrong)
    assert off(Tempering(law, kernel="random-walk"), truth, 64, 16) > Z


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("which", ["laplace", "torch", "flow"])
def test_the_two_parts_and_their_gradients(which, share):
    density, _ = banana()
    law = From(density, starts(density)[which], share=share)
    z = law.sample(motes.Rng(0), 50)
    state, own = law.evaluate(z, True), density.evaluate(z, True)
    torch.testing.assert_close(state["log_prior"] + state["log_likelihood"], own["log_prior"] + own["log_likelihood"])
    for part in ("prior", "likelihood"):
        for j in range(2):
            step = torch.zeros(2, dtype=F).index_fill(0, torch.tensor([j]), 1e-5)
            up, down = law.evaluate(z + step)[f"log_{part}"], law.evaluate(z - step)[f"log_{part}"]
            torch.testing.assert_close(state[f"{part}_gradient"][:, j], (up - down) / 2e-5, atol=1e-4, rtol=1e-4)
    if share == 0:
        v = motes.Rng(1).normal((50, 2))
        found = law.hessian_vector(z, v)
        slopes = [law.evaluate(z + e * 1e-5 * v, True) for e in (1, -1)]
        for part, product in zip(("prior", "likelihood"), found, strict=True):
            up, down = (s[f"{part}_gradient"] for s in slopes)
            torch.testing.assert_close(product, (up - down) / 2e-5, atol=1e-4, rtol=1e-4)


def test_a_transformed_distribution_and_a_constrained_density():
    """Beta(5, 8) reached from a crude normal in z; draws come from our numbers alone."""
    density = Density(lambda v: 4 * v["p"].log() + 7 * (-v["p"]).log1p(), {"p": Beta(torch.ones((), dtype=F), 1.0)})
    base = MultivariateNormal(torch.zeros(1, dtype=F), torch.eye(1, dtype=F))
    q = TransformedDistribution(base, [AffineTransform(-0.4, 0.8)])
    run = motes.sample(Tempering(From(density, q)), 500, seed=0, progress=False)
    truth = math.lgamma(5) + math.lgamma(8) - math.lgamma(13)
    assert abs(run.log_evidence - truth) < Z * run.log_evidence_se < 0.2
    again = motes.sample(Tempering(From(density, q)), 500, seed=0, progress=False)
    assert torch.equal(run.view["p"], again.view["p"])
    mean = run.mean("p")
    assert abs(float(mean) - 5 / 13) < Z * float(mean.se)


def test_what_does_not_fit_is_refused():
    density, _ = banana()
    with pytest.raises(MotesError, match="Approximation"):
        From(density, lambda z: z)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="unconstrained"):
        From(density, Flow(2, lambda u: u[:, :1], lambda z: z[:, 0]))
    with pytest.raises(ShapeError, match="log_prob"):
        From(density, Flow(2, lambda u: u, lambda z: z))
    with pytest.raises(NanLogPotential, match=r"particles \[0, 1, 2\]"):
        From(density, Flow(2, lambda u: u, lambda z: z[:, 0] * math.nan))
    with pytest.raises(ValueError, match="share"):
        From(density, starts(density)["torch"], share=1.0)
    with pytest.raises(MotesError, match="gradients"):
        Laplace().fit(Density(lambda x: x.detach()[:, 0] * 0, NORMAL, vectorised=True), motes.Rng(0))
