"""Non-centred coordinates: which scales depend on what, the map's Jacobian and gradient, and the law that stays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from motes.kernels import HMC, Target, move
from motes.kernels.stationarity.dependence import Dependence, find_dependence, scales_depend
from motes.kernels.stationarity.noncentred import NonCentred
from motes.kernels.stationarity.noncentred_fit import fit_map
from motes.kernels.stationarity.settle import mapped
from motes.rng import Rng

N = 1200


@dataclass(frozen=True)
class Funnel(Target):
    """x0 ~ N(0, 1.5^2), the others N(0, exp(x0)) each."""

    def evaluate(self, position: Tensor, gradient: bool):
        return {"position": position}

    def log_density(self, state):
        x = state["position"]
        v, rest = x[:, 0], x[:, 1:]
        return -0.5 * (v / 1.5).square() - 0.5 * (rest.square().mul((-v).exp()[:, None]) + v[:, None]).sum(1)

    def gradient(self, state):
        x = state["position"].detach().requires_grad_()
        return torch.autograd.grad(self.log_density({"position": x}).sum(), x)[0]


class Wrong(NonCentred):
    """Without the logarithm of the Jacobian's determinant."""

    def log_density(self, state):
        return self.base.log_density({**state, "position": state["centred"]})


def noise(seed: int, *shape: int) -> Tensor:
    return Rng(seed).at("noise").normal(shape)


def funnel(seed: int, n: int = N, d: int = 4) -> Tensor:
    z = noise(seed, n, d)
    v = 1.5 * z[:, :1]
    return torch.cat([v, z[:, 1:] * (0.5 * v).exp()], 1)


def effects(seed: int) -> Tensor:
    """A mean, the logarithm of a scale, and six effects around the mean with that scale."""
    z = noise(seed, N, 8)
    return torch.cat([3 * z[:, :1], z[:, 1:2] - 1, 3 * z[:, :1] + torch.exp(z[:, 1:2] - 1) * z[:, 2:]], 1)


EVEN = torch.full((N,), 1 / N, dtype=torch.float64)


Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)


def given(mu: Tensor, log_tau: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (N, 8) of the effects of eight schools."""
    precision = 1 / SIGMA.square() + torch.exp(-2 * log_tau)[:, None]
    return (Y / SIGMA.square() + mu[:, None] * torch.exp(-2 * log_tau)[:, None]) / precision, precision.rsqrt()


def schools(seed: int, n: int = 256) -> Tensor:
    """Mean, logarithm of a scale, and eight effects that the data hold apart where the scale is wide."""
    z = noise(seed, n, 10)
    mu, log_tau = 4.5 + 3 * z[:, 0], 1 + 0.8 * z[:, 1]
    mean, deviation = given(mu, log_tau)
    return torch.cat([mu[:, None], log_tau[:, None], mean + deviation * z[:, 2:]], 1)


def test_effects_of_one_scale_are_found_together():
    """A single one that is left as it is keeps the neck shut for all."""
    even = torch.full((256,), 1 / 256, dtype=torch.float64)
    found = [find_dependence(schools(seed), even, 0.15) for seed in range(10)]
    assert all(f is not None and f.parents == (1,) and len(f.children) >= 7 for f in found)
    assert sum(f.children == tuple(range(2, 10)) for f in found if f is not None) >= 8


def into_the_neck() -> Tensor:
    """By how many of its deviations a map's mean of each effect is off, 1 and 2 nats below the scales it has seen."""
    x = schools(3)
    x = x[x[:, 1] > 0.3]
    dependence = Dependence((1,), (0,), tuple(range(2, 10)))
    fitted = fit_map(x, torch.full((len(x),), 1 / len(x), dtype=torch.float64), dependence)
    assert fitted is not None
    mu, log_tau = torch.tensor([0.0, 4.0, 8.0] * 2, dtype=torch.float64), torch.tensor([-0.7] * 3 + [-1.7] * 3).double()
    points = torch.cat([mu[:, None], log_tau[:, None], torch.zeros(6, 8, dtype=torch.float64)], 1)
    mean, deviation = given(mu, log_tau)
    law = NonCentred(Funnel(), fitted, torch.arange(6) > 6)
    return ((law._parts(points)[0] - mean) / deviation).square().mean(1).sqrt()


def test_the_means_of_a_map_vanish_where_scales_do(monkeypatch):
    off = into_the_neck()
    assert float(off[:3].max()) < 1.5 and float(off[3:].max()) < 4

    def lines(s: Tensor, t: Tensor) -> Tensor:
        """Means that are linear in the logarithm of the scale, and so are known to come from nowhere in the neck."""
        kept = [torch.ones_like(s), s, torch.sqrt(1 + s.square()), *t[:, None].expand(-1, s.shape[1], -1).unbind(2)]
        return torch.stack([*kept, *[0 * s] * t.shape[1]], 2)

    monkeypatch.setattr("motes.kernels.stationarity.noncentred_fit.wide", lines)
    monkeypatch.setattr("motes.kernels.stationarity.noncentred.wide", lines)
    wrong = into_the_neck()
    assert float(wrong[3:].max()) > 1.5 * float(off[3:].max())


def test_scales_that_depend_on_others_are_found():
    assert find_dependence(funnel(0), EVEN) == Dependence((0,), (), (1, 2, 3))
    assert find_dependence(effects(0), EVEN) == Dependence((1,), (0,), (2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize("seed", range(5))
def test_where_no_scale_depends_on_others_none_is_found(seed):
    z = noise(seed, N, 6)
    mixed = z @ noise(99, 6, 6)
    skewed = torch.exp(z)
    assert find_dependence(z, EVEN) is find_dependence(mixed, EVEN) is find_dependence(skewed, EVEN) is None


@pytest.mark.parametrize("made", [funnel, effects])
def test_map_and_back_and_its_gradient(made):
    x = made(1)
    dependence = find_dependence(x, EVEN)
    assert dependence is not None
    law, state = mapped(Funnel(), {"position": x}, fit_map(x, EVEN, dependence))
    assert isinstance(law, NonCentred)
    u = state["position"]
    there = law.evaluate(u, True)
    assert torch.allclose(there["centred"], x, atol=1e-10) and torch.equal(law.leave(state)["position"], x)
    # each child has one scale now
    children = u[:, list(dependence.children)]
    assert float((children.std(0) - 1).abs().max()) < 0.2
    # the Jacobian's determinant and the gradient, against autograd and differences
    few = torch.arange(0, N, 150)
    part = law.part(few)
    jacobian = torch.autograd.functional.jacobian(lambda v: part.evaluate(v, False)["centred"], u[few])
    assert isinstance(jacobian, Tensor)
    rows = torch.stack([jacobian[i, :, i] for i in range(len(few))])
    assert torch.allclose(torch.linalg.slogdet(rows)[1], part.evaluate(u[few], False)["log_jacobian"], atol=1e-9)
    gradient, step = part.gradient(part.evaluate(u[few], True)), 1e-5
    for i in range(u.shape[1]):
        shift = torch.zeros(u.shape[1], dtype=u.dtype)
        shift[i] = step
        up, down = (part.log_density(part.evaluate(u[few] + s * shift, False)) for s in (1, -1))
        slope = (up - down) / (2 * step)
        assert torch.allclose(gradient[:, i], slope, rtol=1e-5, atol=1e-5)


def moved_by(kind: type[NonCentred]) -> Tensor:
    """Standard errors by which the second moments of x0, and its mean, leave those of exact draws."""
    x, past = funnel(2, 4000), funnel(3, 4000)
    even = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    fitted = fit_map(past, even, Dependence((0,), (), (1, 2, 3)))  # from other draws, so that nothing is adapted
    assert fitted is not None
    law = kind(Funnel(), fitted, torch.arange(len(x)) >= len(x) // 2)
    state, kernel = law.enter({"position": x}), HMC()
    parameters = kernel.fit(kernel.start(4, x.dtype), law, law.enter({"position": past}), even)
    moved = move(kernel, Rng(4), law, state, even, parameters, sweeps=10, adapt=False)
    v = law.leave(moved.state)["position"][:, 0]
    values = torch.stack([v, v.square() - 1.5**2])
    return values.mean(1) / values.std(1) * len(v) ** 0.5


def test_moves_in_the_map_leave_the_law_and_its_twin_does_not():
    assert float(moved_by(NonCentred).abs().max()) < 4.9
    assert float(moved_by(Wrong).abs().max()) > 10


def test_too_few_particles_have_no_map():
    x = funnel(5, 40)
    assert fit_map(x, torch.full((40,), 1 / 40, dtype=torch.float64), Dependence((0,), (), (1, 2, 3))) is None


def clusters(seed: int, d: int = 6, many: int = 32, each: int = 8, correlation: float = 0.9) -> tuple[Tensor, Tensor]:
    """Normal coordinates in families whose members are alike, and the numbers of the families."""
    rng = torch.Generator().manual_seed(seed)
    common = torch.randn(many, 1, d, generator=rng, dtype=torch.float64)
    own = torch.randn(many, each, d, generator=rng, dtype=torch.float64)
    x = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own
    return x.flatten(0, 1), torch.arange(many).repeat_interleave(each)


def test_scales_that_depend_are_hinted_at_and_copies_are_no_evidence():
    even = torch.full((256,), 1 / 256, dtype=torch.float64)
    found = [scales_depend(x, even, family) for x, family in map(clusters, range(200))]
    assert sum(found) <= 8  # .01 each: with 8 or more the chance is 1e-3, with 12 it is 1e-6
    # the twin: who does not know of the families takes them for evidence
    alone = torch.arange(256)
    assert sum(scales_depend(clusters(seed)[0], even, alone) for seed in range(50)) > 20
    assert all(scales_depend(funnel(seed, 256), even, alone) for seed in range(20))
