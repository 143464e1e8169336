"""Drifting: the field in closed form, what is a gradient and what is not, and where it leads."""

import math

import pytest
import torch

from diffusion.linear import F64
from motes import Rng
from motes.diffusion.training import Drift, Drifting, asymmetry, flow
from motes.errors import MotesError, ShapeError, UnknownName
from motes.learn import Plan, PointGenerator, build, fit

ALL = [Drift(kernel, field=field) for kernel in ("laplace", "gaussian") for field in ("conservative", "original")]


def grid(mean: float, std: float, many: int = 4000) -> torch.Tensor:
    """A normal law as points of equal weight, (many, 1): errors of averages of smooth functions are below 1e-3."""
    u = (torch.arange(many, dtype=F64) + 0.5) / many
    return mean + std * math.sqrt(2) * torch.erfinv(2 * u - 1)[:, None]


@pytest.mark.parametrize("field", ["conservative", "original"])
def test_the_normal_kernel_gives_the_difference_of_two_blurred_scores(field):
    """V = h^2 [(m_p - x) / (s_p^2 + h^2) - (m_q - x) / (s_q^2 + h^2)] for normal laws, whichever the field."""
    h, (mp, sp), (mq, sq) = 0.7, (0.4, 0.8), (-0.3, 1.1)
    x = torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)
    found = Drift("gaussian", field=field, scales=(h,))(x, grid(mp, sp), grid(mq, sq))  # type: ignore[arg-type]
    exact = h**2 * ((mp - x) / (sp**2 + h**2) - (mq - x) / (sq**2 + h**2))
    assert torch.allclose(found, exact, atol=5e-3)
    assert float(exact.abs().max()) > 0.1


def test_laplaces_conservative_field_is_the_gradient_of_a_density_estimate():
    """h^2 grad log mean k#(|x - y|), with k# by quadrature of its integral; the original field is another."""
    h, data, own = 0.6, Rng(0).normal((40, 2)), 1 + Rng(1).normal((30, 2))
    x = Rng(2).normal((5, 2)).requires_grad_()
    r = torch.linspace(0, 30, 600_001, dtype=F64)
    steps = torch.trapezoid(torch.stack([r, r]) * torch.exp(-r / h), r)  # the whole integral is h^2
    assert torch.allclose(steps, torch.tensor(h**2, dtype=F64), rtol=1e-6)

    def sharp(distance):
        return h * (distance + h) * torch.exp(-distance / h)

    s = r[r >= 0.9]
    assert float(torch.trapezoid(s * torch.exp(-s / h), s)) == pytest.approx(
        float(sharp(torch.tensor(0.9, dtype=F64))), rel=1e-5
    )
    log_ratio = torch.log(sharp(torch.cdist(x, data)).mean(1)) - torch.log(sharp(torch.cdist(x, own)).mean(1))
    (gradient,) = torch.autograd.grad(log_ratio.sum(), x)
    found = Drift("laplace", field="conservative", scales=(h,))(x.detach(), data, own)
    assert torch.allclose(found, h**2 * gradient, atol=1e-12)
    assert not torch.allclose(Drift("laplace", field="original", scales=(h,))(x.detach(), data, own), found, atol=1e-2)


def test_only_the_conservative_field_has_no_curl():
    """The asymmetry of the Jacobian: 1e-20 for gradients, above .01 somewhere for Laplace's original field."""
    data, own, x = Rng(0).normal((12, 2)), 0.5 + Rng(1).normal((12, 2)), Rng(2).normal((200, 2))
    curl = {
        (d.kernel, d.field): float(asymmetry(lambda z, d=d: d(z, data, own), x, seed=Rng(3)).detach().max())
        for d in ALL
    }
    assert curl["laplace", "original"] > 1e-2
    assert max(v for k, v in curl.items() if k != ("laplace", "original")) < 1e-20


@pytest.mark.parametrize("drift", [*ALL, Drift(scales=(0.2, 1.0), relative=True)], ids=str)
def test_the_field_is_antisymmetric_and_zero_for_equal_laws(drift):
    data, own, x = Rng(0).normal((50, 3)), 1 + Rng(1).normal((50, 3)), Rng(2).normal((9, 3))
    assert float(drift(x, data, data).abs().max()) < 1e-12
    if not drift.relative:  # the unit of distance is that to the data
        assert torch.allclose(drift(x, data, own), -drift(x, own, data), atol=1e-12)
    shaped = drift(x.reshape(9, 3, 1), data.reshape(50, 3, 1), own.reshape(50, 3, 1))
    assert torch.allclose(shaped, drift(x, data, own).reshape(9, 3, 1))


def test_a_sample_does_not_see_itself():
    """With `own` None, row i compares with the other rows: the loop over rows says the same."""
    data, x = Rng(0).normal((20, 12)), Rng(1).normal((6, 12))
    for drift in ALL:
        whole = drift(x, data)
        for i in range(6):
            assert torch.allclose(
                drift(x[i : i + 1], data, torch.cat([x[:i], x[i + 1 :]])), whole[i : i + 1], atol=1e-10
            )
        assert not torch.allclose(drift(x, data, x), whole, atol=1e-3)


def test_far_away_nothing_is_nan():
    x, data = torch.tensor([[1e4, 0.0], [1e4, 1.0]], dtype=F64), Rng(0).normal((5, 2))
    for drift in ALL:
        assert bool(torch.isfinite(drift(x, data)).all())


def test_several_widths_weigh_alike():
    data, x = Rng(0).normal((300, 2)), 2 + Rng(1).normal((300, 2))
    one, other = Drift(scales=(0.1,))(x, data), Drift(scales=(2.0,))(x, data)
    both = Drift(scales=(0.1, 2.0))(x, data)
    scaled = sum(v / v.square().mean().sqrt() for v in (one, other)) / 2
    assert torch.allclose(both, scaled, atol=1e-12)  # type: ignore[arg-type]


def test_particles_flow_to_the_data():
    """From one corner to two blobs: means, spreads and shares of the blobs become those of the data."""
    side = torch.where(torch.arange(200) % 4 == 0, -1.0, 1.0)[:, None].to(F64)
    data = 0.2 * Rng(0).normal((200, 2)) + side * torch.tensor([[2.0, 0.0]], dtype=F64)
    begin = 0.5 * Rng(1).normal((200, 2)) + torch.tensor([[0.0, 1.0]], dtype=F64)
    for drift in (Drift(scales=(1.0,)), Drift("laplace", field="original", scales=(1.0,))):
        end = flow(begin, data, drift=drift, steps=200, rate=1.0)
        share = float((end[:, 0] < 0).to(F64).mean())
        assert abs(share - 0.25) < 0.05
        assert torch.allclose(end.mean(0), data.mean(0), atol=0.1)
        assert torch.allclose(end[end[:, 0] > 0].std(0), data[data[:, 0] > 0].std(0), atol=0.12)
    assert torch.equal(flow(begin, data, drift=drift, steps=3), flow(begin, data, drift=drift, steps=3))


def test_a_generator_drifts_to_the_data_in_one_step():
    """The loss falls, and one call of the network makes points with the data's mean and spread."""
    angle = 2 * math.pi * Rng(0).uniform((2000, 1), dtype=torch.float32)
    data = torch.cat([angle.cos(), angle.sin()], 1) + 0.05 * Rng(1).normal((2000, 2), dtype=torch.float32)
    network = build(lambda: PointGenerator(2, width=48, depth=2), seed=Rng(2))
    plan = Plan(steps=180, batch=128, rate=4e-3, average=0.98)
    fitted = fit(network, Drifting(Drift(scales=(0.5,))), data, plan=plan, progress=False)
    assert float(fitted.losses[-20:].mean()) < 0.2 * float(fitted.losses[:5].mean())
    made = fitted.network(Rng(3).normal((1000, 2), dtype=torch.float32))
    assert float(made.mean(0).abs().max()) < 0.15 and abs(float(made.norm(dim=1).mean()) - 1) < 0.15
    quadrant = (made[:, 0] > 0).long() + 2 * (made[:, 1] > 0).long()
    assert float(quadrant.bincount(minlength=4).min()) > 120


def test_what_does_not_fit_is_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(UnknownName, match="kernel"):
        Drift("cauchy")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="field"):
        Drift(field="released")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scales"):
        Drift(scales=())
    with pytest.raises(ShapeError, match="differ"):
        Drift()(x, torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="two of its own"):
        Drift()(x[:1], x)
    with pytest.raises(ValueError, match="rate"):
        flow(x, x, rate=2.0)
    with pytest.raises(MotesError, match=r"step 0 of the flow: particles \[0, 1, 2\]"):
        flow(x, torch.full((2, 2), torch.nan))
    with pytest.raises(ShapeError, match="generator"):
        Drifting()(torch.nn.Linear(2, 3), Rng(0), (x,))
