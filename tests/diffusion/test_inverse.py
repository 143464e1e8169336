"""Operators against their dense matrices, and the images behind a measurement against the conjugate normal law."""

import math
import warnings

import pytest
import torch

import motes
from diffusion.linear import expected_weight
from motes.diffusion import VarianceExploding, VariancePreserving, gaussian, inverse, mixture
from motes.diffusion.inverse import Observation, posterior
from motes.errors import MotesError

F64 = torch.float64
VP = VariancePreserving()
SHAPE = (1, 6, 6)
RNG = motes.Rng(5)
CHECKER = (torch.arange(36).reshape(SHAPE) % 3) == 0
LINES = torch.zeros(6, 6, dtype=torch.bool)
LINES[[0, 1, 5]] = True
KERNEL = torch.tensor([[0.0, 0.1, 0.2], [0.1, 0.3, 0.1], [0.0, 0.2, 0.0]], dtype=F64)
OPERATORS = {
    "matrix": inverse.Matrix(RNG.at("matrix").normal((7, 36)), SHAPE),
    "tall": inverse.Matrix(RNG.at("tall").normal((40, 36)), SHAPE),
    "mask": inverse.Mask(CHECKER),
    "downsample": inverse.Downsample(2),
    "blur": inverse.Blur(KERNEL),
    "fourier": inverse.Fourier(LINES),
    "radon": inverse.Radon(torch.tensor([0.0, 0.5, 1.4], dtype=F64)),
    "function": inverse.Function(lambda x: x.flatten(1).cumsum(1)[:, ::5], shape=SHAPE),
}


def dense(operator):
    """The matrix (m, 36), a column an image with one bright pixel."""
    return operator.apply(torch.eye(36, dtype=F64).reshape(36, *SHAPE)).flatten(1).T


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_the_transpose(name):
    operator, matrix = OPERATORS[name], dense(OPERATORS[name])
    out = operator.apply(torch.zeros(1, *SHAPE, dtype=F64)).shape[1:]
    y = torch.eye(len(matrix), dtype=F64).reshape(len(matrix), *out)
    assert torch.allclose(operator.adjoint(y).flatten(1), matrix, atol=1e-12)


@pytest.mark.parametrize("noise, spread", [(0.3, 2.0), (1e-2, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("name", OPERATORS)
def test_solve_inverts(name, noise, spread):
    operator, matrix = OPERATORS[name], dense(OPERATORS[name])
    out = operator.apply(torch.zeros(1, *SHAPE, dtype=F64)).shape[1:]
    r = RNG.at("residual").normal((5, len(matrix)))
    exact = torch.linalg.solve(spread * matrix @ matrix.T + noise * torch.eye(len(matrix), dtype=F64), r.T).T
    for dtype, tolerance in ((F64, 1e-8), (torch.float32, 2e-3)):
        found = operator.solve(r.reshape(5, *out).to(dtype), noise, spread).flatten(1).to(F64)
        assert torch.allclose(found, exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))


def test_a_small_noise_does_not_blow_up_rounding():
    """A wide matrix in float32 at noise 1e-3: what should be zero, divided by the variance, would be large."""
    operator, matrix = OPERATORS["matrix"], dense(OPERATORS["matrix"])
    r = RNG.at("small").normal((5, 7))
    exact = torch.linalg.solve(matrix @ matrix.T + 1e-6 * torch.eye(7, dtype=F64), r.T).T
    found = operator.solve(r.to(torch.float32), 1e-6, 1.0)
    assert torch.allclose(found.to(F64), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_rows_are_solved_by_themselves():
    operator = OPERATORS["radon"]
    r = RNG.at("rows").normal((4, 1, 3, 6))
    whole = operator.solve(r, 0.1, 1.0)
    assert torch.equal(whole[2:3], operator.solve(r[2:3], 0.1, 1.0))


def test_conjugate_gradients_that_cannot_converge_say_so():
    wrong = inverse.Function(lambda x: x, adjoint_function=lambda y: -3 * y.roll(1, -1))
    with pytest.raises(motes.MotesError, match="adjoint"):
        wrong.solve(torch.arange(1, 6, dtype=F64)[None] ** 2, 1.0, 1.0)


def test_a_physics_of_deepinv_is_taken():
    class Physics:
        def A(self, x):
            return 2 * x

        def A_adjoint(self, y):
            return 2 * y

    operator = inverse.from_deepinv(Physics())
    x = torch.ones(2, 3, dtype=F64)
    assert torch.equal(operator.apply(x), 2 * x) and torch.allclose(operator.solve(x, 1.0, 1.0), x / 5)


@pytest.mark.parametrize(
    "process, name",
    [(p, n) for p in (VP, VarianceExploding(sigma_min=0.02, sigma_max=20.0)) for n in ("matrix", "mask")]
    + [(VP, "fourier")],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_normal_data_give_the_conjugate_posterior_and_evidence(name, process):
    """d = 36, standard normal data: the twist is exact, so few particles do; every mean within 5 standard errors."""
    operator, noise = OPERATORS[name], 0.5
    matrix = dense(operator)
    truth = RNG.at("truth").normal((1, *SHAPE))
    y = operator.apply(truth)[0] + noise * RNG.at("noise").normal(tuple(operator.apply(truth)[0].shape))
    observation = Observation(operator, y, noise)
    denoiser = gaussian(process, torch.zeros(36, dtype=F64), torch.eye(36, dtype=F64))
    flat = motes.diffusion.Denoiser(
        lambda x, t: denoiser.model(x.flatten(1), t).reshape(x.shape), process, predicts="data"
    )
    model = posterior(flat, 200, observation, shape=SHAPE, dtype=F64, integrator="euler-maruyama")
    run = motes.sample(model, 400, seed=3, progress=False)
    spread = matrix @ matrix.T + noise**2 * torch.eye(len(matrix), dtype=F64)
    flat_y = y.reshape(-1)
    log_z = float(torch.distributions.MultivariateNormal(torch.zeros(len(matrix), dtype=F64), spread).log_prob(flat_y))
    assert abs(run.log_evidence - log_z) < 5 * run.log_evidence_se + 0.6  # the chain's own error at 200 steps
    gain = torch.linalg.solve(spread, matrix).T
    mean, covariance = gain @ flat_y, torch.eye(36, dtype=F64) - gain @ matrix
    found = (run.weight[:, None] * run.view.flatten(1)).sum(0)
    error = (covariance.diag() / run.ess).sqrt()
    assert float(((found - mean) / error).abs().max()) < 5.5 and run.ess > 100
    assert float(((mean / error) ** 2).mean()) > 30  # the prior's mean, 0, would fail


def test_the_normaliser_is_exact_whatever_the_guess():
    """By quadrature: a wrong scale, a wrong gain and a nonlinear function leave E[Z_hat] where it is."""
    denoiser = mixture(
        VP,
        torch.tensor([0.3, 0.7], dtype=F64),
        torch.tensor([[-0.5], [0.8]], dtype=F64),
        torch.tensor([[[0.4]], [[0.3]]], dtype=F64),
    )
    times = VP.times(9)[[5, 7, 8]]
    for operator in (inverse.Matrix(torch.tensor([[1.5]], dtype=F64), (1,)), lambda x: torch.tanh(x)):
        values = []
        for scale, gain, guidance in ((1.0, 1.0, None), (0.3, 2.0, "reward"), (2.0, 0.5, 0.6)):
            observation = Observation(operator, torch.tensor([0.6], dtype=F64), 0.7, scale=scale, gain=gain)
            model = posterior(denoiser, times, observation, shape=(1,), dtype=F64, guidance=guidance)
            values.append(expected_weight(model, 48))
        assert values == pytest.approx([values[0]] * 3, rel=1e-6)


def test_images_that_do_not_fit_their_measurement_are_remarked_on():
    """Data with a standard deviation of 17 in one direction: guidance that takes it for 1 overshoots and diverges."""
    wide = gaussian(VP, torch.zeros(2, dtype=F64), torch.diag(torch.tensor([300.0, 1.0], dtype=F64)))
    operator = inverse.Matrix(torch.tensor([[1.0, 0.0]], dtype=F64), (2,))

    def run(scale):
        observation = Observation(operator, torch.tensor([20.0], dtype=F64), 0.1, scale=scale)
        return motes.sample(posterior(wide, 60, observation, shape=(2,), dtype=F64), 64, seed=1, progress=False)

    with pytest.warns(UserWarning, match="do not fit the measurement.*`scale`"):
        run(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = run(300**0.5)
    assert abs(float(fits.mean().value[0]) - 20) < 0.5


def test_the_twist_is_the_normal_log_density_up_to_a_constant_and_so_is_its_gradient():
    observation = Observation(OPERATORS["matrix"], RNG.at("y").normal((7,)), 0.4, scale=0.8)
    denoiser = motes.diffusion.Denoiser(lambda x, t: 0.7 * x, VP, predicts="data")
    model = posterior(denoiser, 4, observation, shape=SHAPE, dtype=F64)
    x = RNG.at("x").normal((3, *SHAPE))
    seen = model.evaluator(motes.Rng(0), x, 2)
    alpha, sigma = (float(f(model.table.times[2])) for f in (VP.alpha, VP.sigma))
    matrix = dense(OPERATORS["matrix"])
    spread = 0.64 * sigma**2 / (alpha**2 * 0.64 + sigma**2) * matrix @ matrix.T + 0.16 * torch.eye(7, dtype=F64)
    law = torch.distributions.MultivariateNormal(observation.y, spread)
    at = x.clone().requires_grad_()
    value = law.log_prob((0.7 * at).flatten(1) @ matrix.T)
    (slope,) = torch.autograd.grad(value.sum(), at)
    difference = seen["twist"] - value.detach()
    assert float(difference.max() - difference.min()) < 1e-10
    assert torch.allclose(seen["shift"], float(model.table.std[2]) ** 2 * slope, atol=1e-12)


def test_the_reward_is_the_log_likelihood():
    observation = Observation(OPERATORS["mask"], torch.zeros(12, dtype=F64), 0.4)
    x = RNG.at("images").normal((3, *SHAPE))
    exact = torch.distributions.Normal(0.0, 0.4).log_prob(x[:, CHECKER]).sum(1)
    assert torch.allclose(observation.reward(x), exact)
    assert math.isfinite(float(observation.reward(x)[0]))


def test_one_number_may_be_measured():
    """The sum of an image, as a number and not as a vector of one: the same reward and the same run."""
    denoiser = gaussian(VP, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    found = []
    for total, y in ((lambda x: x.sum(1), torch.tensor(0.5)), (lambda x: x.sum(1, keepdim=True), torch.tensor([0.5]))):
        for operator in (total, inverse.Function(total, shape=(2,))):
            model = posterior(denoiser, 5, Observation(operator, y, 0.5, gain=2.0), shape=(2,), dtype=F64)
            found.append(motes.sample(model, 6, seed=1, progress=False).log_evidence)
    assert found == pytest.approx([found[0]] * 4, rel=1e-9)


def test_an_operator_without_gradients_is_not_blamed_on_the_reward():
    denoiser = gaussian(VP, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    observation = Observation(lambda x: x.detach(), torch.zeros(2, dtype=F64), 0.5)
    with pytest.raises(MotesError, match="the twist has no gradient"):
        motes.sample(posterior(denoiser, 5, observation, shape=(2,), dtype=F64), 6, seed=1, progress=False)


def test_what_does_not_fit_is_refused():
    y = torch.zeros(12, dtype=F64)
    with pytest.raises(ValueError, match="all finite"):
        Observation(OPERATORS["mask"], torch.where(torch.arange(12) > 3, y, torch.nan), 1.0)
    with pytest.raises(ValueError, match="real numbers"):
        Observation(OPERATORS["mask"], y.to(torch.complex128), 1.0)
    with pytest.raises(ValueError, match="factor"):
        inverse.Downsample(0)
    with pytest.raises(ValueError, match="std must be positive"):
        Observation(OPERATORS["mask"], y, 0.0)
    with pytest.raises(motes.MotesError, match=r"returns shape \(12,\), the measurement has \(11,\)"):
        Observation(OPERATORS["mask"], y[1:], 1.0).reward(torch.zeros(2, *SHAPE, dtype=F64))
    with pytest.raises(motes.MotesError, match="the mask is"):
        OPERATORS["mask"].apply(torch.zeros(2, 5))
    with pytest.raises(motes.MotesError, match="cannot be cut"):
        inverse.Downsample(4).apply(torch.zeros(2, *SHAPE))
    with pytest.raises(motes.MotesError, match="odd sizes"):
        inverse.Blur(torch.ones(2, 3))
    with pytest.raises(motes.MotesError, match="larger than the images"):
        inverse.Blur(torch.ones(7, 7)).apply(torch.zeros(2, *SHAPE))
    with pytest.raises(ValueError, match="at least one True"):
        inverse.Mask(torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one True"):
        inverse.Fourier(torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(motes.MotesError, match="square images"):
        inverse.Radon(torch.zeros(1)).apply(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="adjoint"):
        inverse.Function(lambda x: x)
    with pytest.raises(motes.MotesError, match="need a matrix"):
        inverse.Matrix(torch.zeros(2, 3), (4,))
