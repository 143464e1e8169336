"""Training of denoisers: each objective's optimum is the closed form that it promises."""

import copy
import math

import pytest
import torch
from torch import nn

from diffusion.linear import F64
from motes import Rng
from motes.diffusion import Denoiser, VarianceExploding, VariancePreserving, gaussian, mixture
from motes.diffusion.networks import ImageUNet, Labelled
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.diffusion.training import Denoising, Distillation, Energy, MissingParts, NoisyData, Scaled, asymmetry, train
from motes.diffusion.training.denoising import noised
from motes.errors import UnknownName
from motes.learn import Plan, PointNetwork, build

VP = VariancePreserving()
POINTS = Rng(0).at("points").normal((400, 2), dtype=torch.float32)
SHORT = Plan(steps=30, batch=32, every=10)


class Slope(nn.Module):
    """a x (or x W'): the simplest network, in float64, so that a loss is a square of its slope."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.as_tensor(value, dtype=F64))

    def forward(self, x, t, **more):
        return self.value * x if self.value.ndim == 0 else x @ self.value.T


def frozen(alpha_squared: float) -> VariancePreserving:
    """A process that stands still at one alpha^2."""
    t = float(VP.time(0.5 * math.log(alpha_squared / (1 - alpha_squared))))
    return VariancePreserving(t_min=t, t_max=t + 1e-9)


def optimum(objective, batch, rng=None) -> tuple[float, float]:
    """The slope s of least loss and its standard error over examples: the loss is a - 2 b s + c s^2."""
    rng = rng or Rng(3)
    with torch.no_grad():
        minus, zero, plus = (objective(Slope(s), rng, batch) for s in (-1.0, 0.0, 1.0))
    b, c = (minus - plus) / 4, (plus + minus) / 2 - zero
    slope = float(b.mean() / c.mean())
    return slope, float((b - slope * c).std() / c.mean() / math.sqrt(len(b)))


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def points_network() -> PointNetwork:
    return build(lambda: PointNetwork(2, width=16, depth=1), seed=Rng(1))


def test_objectives_and_networks_of_images_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    network, again = (build(lambda: ImageUNet(8, classes=10), seed=Rng(0)) for _ in range(2))
    train(points_network(), POINTS, VP, perturbation=0.1, symmetry=0.1, plan=SHORT, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(network), weights(again))


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnknownName, match="weighting"):
        Denoising(VP, weighting="minimal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="symmetry"):
        train(
            points_network(),
            POINTS,
            VP,
            objective=NoisyData(VP, 0.5),
            symmetry=1.0,
            progress=False,
        )
    with pytest.raises(ValueError, match="predicts="):
        train(
            points_network(),
            POINTS,
            VP,
            objective=NoisyData(VP, 0.5),
            predicts="noise",
            progress=False,
        )
    with pytest.raises(ValueError, match="hide"):
        MissingParts(VP, hide=0.0)
    with pytest.raises(ValueError, match="noise"):
        NoisyData(VP, 1e9)


# -------------------------------------------------------------------------------------------------- the optimum


def test_input_perturbation_has_the_wider_optimum():
    """sigma / (alpha^2 c^2 + sigma^2 (1 + gamma^2)) = .62994 for alpha^2 = .6, c = 1, gamma = .1; without it .63246.

    The standard error is .0008 of which the difference is three; a million examples make it .0006.
    """
    data = Rng(1).at("data").normal((1_000_000, 1))
    for gamma in (0.1, 0.5):
        slope, error = optimum(Denoising(frozen(0.6), predicts="noise", perturbation=gamma), (data,))
        expected = math.sqrt(0.4) / (0.6 + 0.4 * (1 + gamma**2))
        assert abs(slope - expected) < 4.9 * error < 0.005
        twin, error = optimum(Denoising(frozen(0.6), predicts="noise"), (data,))
        assert abs(twin - math.sqrt(0.4)) < 4.9 * error
        assert gamma < 0.5 or abs(twin - expected) > 20 * error


@pytest.mark.parametrize("predicts", ["noise", "data", "velocity", "score", "flow", "backward flow"])
@pytest.mark.parametrize("weighting", ["plain", "data", "truncated", "likelihood"])
@pytest.mark.parametrize("process", [VP, RectifiedFlow(), VarianceExploding(sigma_max=5.0)])
def test_the_losses_of_all_predictions_are_one_loss(process, predicts, weighting):
    """With a weighting of the data's error, the same answer in other terms has the same loss; plain is its own."""
    exact = gaussian(process, torch.zeros(2, dtype=F64), 0.5 * torch.eye(2, dtype=F64))
    data = Rng(2).normal((64, 2))

    def answer(x, t):  # a wrong model, said as `predicts`
        rows = [0.9 * exact.data(x[i : i + 1], t[i]) for i in range(len(x))]
        wrong = Denoiser(lambda *_: torch.cat(rows), process, predicts="data")
        kind = {"flow": wrong.flow, "backward flow": lambda x, t: -wrong.flow(x, t)}
        return kind.get(predicts, getattr(wrong, predicts, None))(x, t)

    loss = Denoising(process, predicts=predicts, weighting=weighting)(answer, Rng(7), (data,))  # type: ignore[arg-type]
    at = noised(Rng(7), process, data)
    wrong = torch.cat([0.9 * exact.data(at.x[i : i + 1], at.t[i]) for i in range(len(data))])
    square = (wrong - data).square().mean(1)
    alpha, sigma = process.alpha(at.t), process.sigma(at.t)
    if weighting == "plain":
        ratio = {"noise": alpha / sigma, "data": torch.ones_like(alpha), "score": alpha / sigma**2}
        if predicts in ratio:
            assert torch.allclose(loss, ratio[predicts] ** 2 * square, rtol=1e-6)
        return
    snr = (alpha / sigma) ** 2
    weight = {
        "data": torch.ones_like(snr),
        "truncated": snr.clamp(max=5.0),
        "likelihood": 0.5 * process.diffusion(at.t) ** 2 * alpha**2 / sigma**4,
    }
    assert torch.allclose(loss, weight[weighting] * square, rtol=1e-6)


def test_times_are_spread_over_the_whole_process():
    for times in ("time", "snr"):
        t = noised(Rng(0), VP, torch.zeros(1000, 1), times).t
        place = (t - VP.t_min) / (VP.t_max - VP.t_min)
        if times == "snr":
            ends = VP.log_snr(VP.t_max), VP.log_snr(VP.t_min)
            place = (VP.log_snr(t) - ends[0]) / (ends[1] - ends[0])
        assert torch.allclose(place.sort().values.diff(), torch.full((999,), 1e-3, dtype=F64), atol=1e-9)


def test_self_conditioning_trains_and_samples_with_an_estimate():
    """The network sees zeros or its own prediction of the data, without a gradient through the first answer."""
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(0.5))

        def forward(self, x, t, estimate):
            seen.append((estimate.abs().max().item(), estimate.requires_grad))
            return self.gain * x + 0.1 * estimate

    plan = Plan(steps=40, batch=16, held_out=0.0)
    trained = train(Spy(), POINTS, VP, predicts="data", plan=plan, self_conditioning=0.5, progress=False)
    twice = (len(seen) - 40) / 40
    assert 0.2 < twice < 0.8 and not any(grad for _, grad in seen)
    x, gain = torch.ones(3, 2), trained.network.gain
    assert torch.allclose(trained.model.data(x, 0.5), gain * x + 0.1 * gain * x)
    with pytest.raises(ValueError, match="self-conditioning"):
        Denoising(VP, condition="sigma", self_conditioning=0.5)


def test_labels_are_dropped_at_the_rate_that_was_asked():
    seen = []

    def network(x, t, label):
        seen.append(label)
        return x

    labels = torch.arange(10_000) % 10
    Denoising(VP, drop=0.3)(network, Rng(0), (torch.zeros(10_000, 1), labels))  # type: ignore[arg-type]
    hidden = seen[0] < 0
    assert abs(float(hidden.double().mean()) - 0.3) < 4.9 * math.sqrt(0.21 / 10_000)
    assert torch.equal(seen[0][~hidden], labels[~hidden])
    assert torch.equal(Labelled(lambda x, t, label: label, 3)(torch.zeros(2, 1), torch.zeros(2)), torch.tensor([3, 3]))


def test_a_trained_plane_law_is_the_law():
    """Two blobs: trained predictions agree with the exact ones, under the law of the states."""
    rng = Rng(4)
    side = torch.where(rng.at("side").uniform((4000, 1)) < 0.5, -1.0, 1.0)
    points = (0.3 * rng.at("blob").normal((4000, 2)) + side * torch.tensor([[1.0, 0.5]])).float()
    network = build(lambda: PointNetwork(2), seed=Rng(5))
    trained = train(network, points, VP, plan=Plan(steps=400, batch=256, rate=5e-3, average=0.99), progress=False)
    means = torch.tensor([[1.0, 0.5], [-1.0, -0.5]], dtype=F64)
    exact = mixture(VP, torch.ones(2), means, 0.09 * torch.eye(2, dtype=F64).expand(2, 2, 2))
    for t in (0.1, 0.3, 0.6):
        at = noised(Rng(6), VariancePreserving(t_min=t, t_max=t + 1e-9), points.double())
        wanted = exact.data(at.x, t)
        gap = (trained.model.data(at.x.float(), t) - wanted).square().mean() / wanted.square().mean()
        assert float(gap) < 0.06
        nothing = (VP.alpha(t) * at.x - wanted).square().mean() / wanted.square().mean()  # before training
        assert float(gap) < 0.2 * float(nothing)


# -------------------------------------------------------------------------------------------------- energies


def test_an_energy_is_conservative_and_its_density_has_its_score():
    process = VariancePreserving()
    network = PointNetwork(3, width=8, depth=1).double()
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.5)
    energy = Energy(network, process, spread=0.7)
    x, t = Rng(0).normal((5, 3)), torch.full((5,), 0.4, dtype=F64)
    z = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(energy.log_density(z, t).sum(), z)
    denoiser = Denoiser(energy, process, predicts="noise", log_density=energy.log_density)
    with torch.no_grad():
        assert torch.allclose(denoiser.score(x, t), score, atol=1e-12)
    assert float(asymmetry(lambda x: energy(x, t), x, seed=Rng(1)).detach().max()) < 1e-20
    assert float(asymmetry(lambda x: network(x, t), x, seed=Rng(1)).detach().min()) > 1e-6  # the network alone is not
    # F = 0 is exact for normal data of this spread
    exact = gaussian(process, torch.zeros(3), 0.49 * torch.eye(3))
    plain = Denoiser(Energy(lambda u, t: torch.zeros_like(u), process, spread=0.7), process, predicts="noise")
    assert torch.allclose(plain.score(x, 0.4).detach(), exact.score(x, 0.4), atol=1e-12)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.zeros(2, 2))

    def forward(self, u, t):
        return u @ self.turn.T


def test_distillation_keeps_the_gradient_and_drops_the_curl():
    """Teacher: the score -2 x of N(0, 1/2) plus a rotation, which is orthogonal to all gradients under a round law."""
    t = 0.3
    process, spread = VariancePreserving(t_min=t, t_max=t + 1e-6), math.sqrt(0.5)
    points = spread * Rng(0).normal((2000, 2), dtype=torch.float32)
    exact = gaussian(process, torch.zeros(2), 0.5 * torch.eye(2))
    turn = torch.tensor([[0.0, 1.5], [-1.5, 0.0]])
    teacher = Denoiser(lambda x, t: exact.noise(x, t[0]) + x @ turn, process, predicts="noise")
    plan = Plan(steps=250, batch=256, rate=5e-2, average=0.9, clip=None, held_out=0.0)
    given = {"objective": Distillation(teacher), "plan": plan, "progress": False}
    x = Rng(1).normal((6, 2), dtype=torch.float32)
    energy = train(Energy(Linear(), process, spread=1.0), points, process, **given).model
    assert torch.allclose(energy.noise(x, t).detach(), exact.noise(x, t), atol=0.08)
    assert energy.has_log_density
    copy_ = train(
        Scaled(Linear(), process, spread=1.0), points, process, **given
    ).model  # any network learns the rotation too
    assert torch.allclose(copy_.noise(x, t).detach(), teacher.noise(x, t), atol=0.15)


def test_the_asymmetry_is_half_the_squared_norm_of_j_minus_its_transpose():
    """Zero for symmetric Jacobians, exactly; else the mean over signs is the norm (4.9 errors), by both formulas."""
    matrix = Rng(0).normal((5, 5))
    truth = 0.5 * (matrix - matrix.T).square().sum()
    x = Rng(1).normal((20_000, 5))
    found = asymmetry(lambda z: z @ matrix.T, x, seed=Rng(2))
    assert abs(float(found.mean() - truth)) < 4.9 * float(found.std()) / math.sqrt(len(x)) < 0.05 * truth
    symmetric = matrix + matrix.T
    assert float(asymmetry(lambda z: z @ symmetric, x, seed=Rng(2)).max()) < 1e-24
    sign = 2.0 * (Rng(2).at("signs").uniform((20_000, 5)) < 0.5).to(F64) - 1
    other = (sign @ matrix).square().sum(1) - (sign @ matrix * (sign @ matrix.T)).sum(1)  # |J'v|^2 - v'JJv
    assert abs(float(other.mean() - truth)) < 4.9 * float(other.std()) / math.sqrt(len(x))
    assert float(other.min()) < 0 <= float(found.min())


def test_the_symmetry_penalty_makes_a_field_more_conservative():
    def curl(symmetry):
        network = build(lambda: PointNetwork(2, width=32), seed=Rng(5))
        trained = train(
            network, POINTS, VP, predicts="noise", plan=Plan(steps=200, batch=64), symmetry=symmetry, progress=False
        )
        field = lambda x: trained.network(x, torch.full((len(x),), 0.2))  # noqa: E731
        return float(asymmetry(field, POINTS, seed=Rng(0)).detach().mean())

    assert curl(10.0) < 0.3 * curl(0.0)


# -------------------------------------------------------------------------------------------------- data not clean


def by_mask(table):
    """A network with a matrix for each of the four masks of two coordinates."""

    def network(x, t, mask):
        which = (mask @ torch.tensor([1.0, 2.0]).to(mask)).long()
        return torch.einsum("nij,nj->ni", table[which], x)

    return network


def test_missing_parts_are_learned_from_fragments():
    """Correlation .8: a coordinate that is missing is predicted from the other with the right slope.

    The loss is a square of the table, so one step of Newton is its optimum. The twin, a loss on what is left, learns
    nothing of what is hidden.
    """
    many, process = 100_000, frozen(0.999999)
    root = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64))
    clean = Rng(0).normal((many, 2)) @ root.T
    seen = (Rng(1).uniform((many, 2)) < 0.8).to(F64)
    data = torch.where(seen > 0, clean, torch.nan)  # what is missing may be anything
    objective = MissingParts(process, hide=0.3)

    def newton(loss):
        zero = torch.zeros(4, 2, 2, dtype=F64)
        gradient = torch.autograd.functional.jacobian(loss, zero).flatten()
        curvature = torch.autograd.functional.hessian(loss, zero).reshape(16, 16)
        return -(torch.linalg.pinv(curvature, rtol=1e-9) @ gradient).reshape(4, 2, 2)

    table = newton(lambda table: objective(by_mask(table), Rng(5), (data, seen)).mean())  # type: ignore[arg-type]
    assert abs(float(table[1, 1, 0]) - 0.8) < 0.02 and abs(float(table[2, 0, 1]) - 0.8) < 0.02
    assert torch.allclose(table[3], torch.eye(2, dtype=F64), atol=0.02)

    left = seen * (Rng(6).uniform((many, 2)) >= 0.3)
    known = torch.where(seen > 0, clean, 0.0)
    twin = newton(lambda table: (left * (by_mask(table)(left * known, None, left) - known)).square().mean())
    assert float(twin[1, 1, 0]) == 0.0


def test_clean_data_are_learned_from_noisy_ones():
    """Data of variance 1.44 under noise .5: at alpha^2 = .5 the slope is that of the clean data."""
    c2, noise, alpha2, many = 1.44, 0.5, 0.5, 400_000
    process = frozen(alpha2)
    example = math.sqrt(c2) * Rng(0).normal((many, 1)) + noise * Rng(1).normal((many, 1))
    slope, error = optimum(NoisyData(process, noise), (example,))
    alpha, sigma2 = math.sqrt(alpha2), 1 - alpha2
    assert abs(slope - alpha * c2 / (alpha2 * c2 + sigma2)) < 4.9 * error < 0.02
    wrong, error = optimum(Denoising(process, predicts="data"), (example,))  # as if the examples were clean
    assert abs(wrong - alpha * c2 / (alpha2 * c2 + sigma2)) > 20 * error
    assert NoisyData(VP, noise).earliest == pytest.approx(float(VP.time(math.log(2))))


def test_scaled_networks_start_from_the_normal_law():
    """F = 0 is the exact denoiser of normal data, at any noise level of an exploding process too."""
    for process in (EDM(), VP, RectifiedFlow()):
        network = build(lambda process=process: Scaled(PointNetwork(2), process, spread=0.5), seed=Rng(0)).double()
        exact = gaussian(process, torch.zeros(2), 0.25 * torch.eye(2))
        for t in process.times(4)[:-1]:
            x = float(process.start_std) * Rng(1).normal((3, 2))
            assert torch.allclose(
                Denoiser(network, process, predicts="data").data(x, t).detach(), exact.data(x, t), atol=1e-9
            )
    fitted = train(
        build(lambda: Scaled(PointNetwork(2, width=16), EDM(), spread=1.0), seed=Rng(0)),
        POINTS,
        EDM(),
        predicts="data",
        weighting="truncated",
        plan=SHORT,
        progress=False,
    )
    assert bool(torch.isfinite(fitted.losses).all()) and copy.deepcopy(fitted.network) is not None
