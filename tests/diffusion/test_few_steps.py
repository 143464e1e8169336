"""Fitted steps: exact in one for normal data, nearer than plain ones for a mixture."""

import pytest
import torch

import motes
from motes.diffusion import Denoiser, Guided, VarianceExploding, VariancePreserving, gaussian, mixture
from motes.diffusion.sampling.few_steps import learned_steps

F64 = torch.float64


def walked(denoiser, steps, n=4000):
    model = Guided(denoiser, steps, shape=(1,), noise=0.0, dtype=F64, final="state")
    return motes.sample(model, n, seed=3, progress=False).view[:, 0]


@pytest.mark.parametrize("process", [VariancePreserving(), VarianceExploding(sigma_min=0.02, sigma_max=20.0)])
def test_one_step_is_exact_for_normal_data(process):
    """The flow of N(m, c^2) is affine with slope sqrt((alpha'^2 c^2 + sigma'^2) / (alpha^2 c^2 + sigma^2))."""
    denoiser = gaussian(process, torch.zeros(1, dtype=F64), torch.tensor([[0.49]], dtype=F64))
    table = learned_steps(denoiser, 1, shape=(1,), fine=2000, dtype=F64, n=16)
    spread = [float(process.alpha(t) ** 2 * 0.49 + process.sigma(t) ** 2) for t in (process.t_min, process.t_max)]
    x = walked(denoiser, table)
    start = process.start_std * motes.Rng(3).at("init", step=0).at("start").normal((4000, 1))[:, 0]
    exact = start * (spread[0] / spread[1]) ** 0.5
    assert torch.allclose(x, exact, rtol=2e-3, atol=1e-4)
    plain = walked(denoiser, 1)
    assert float((plain - exact).abs().mean()) > 20 * float((x - exact).abs().mean())


def test_few_fitted_steps_are_nearer_to_the_flow_than_plain_ones():
    process = VariancePreserving()
    denoiser = mixture(
        process,
        torch.tensor([0.3, 0.7], dtype=F64),
        torch.tensor([[-1.0], [0.8]], dtype=F64),
        torch.tensor([[[0.05]], [[0.1]]], dtype=F64),
    )
    flow = walked(denoiser, 1000)
    plain, fitted = walked(denoiser, 6), walked(denoiser, learned_steps(denoiser, 6, shape=(1,), dtype=F64))
    error = [float((x - flow).square().mean()) for x in (plain, fitted)]
    assert error[1] < 0.6 * error[0]


def test_steps_that_end_without_noise_are_fitted_too():
    """At t = 0 the log of alpha / sigma is infinite; a step from pure normal data is the one that is exact."""
    process = VariancePreserving(t_min=0.0)
    denoiser = gaussian(process, torch.zeros(1, dtype=F64), torch.tensor([[0.49]], dtype=F64))
    table = learned_steps(denoiser, 1, shape=(1,), fine=2000, dtype=F64, n=16)
    x, start = walked(denoiser, table), motes.Rng(3).at("init", step=0).at("start").normal((4000, 1))[:, 0]
    assert torch.allclose(x, 0.7 * start, rtol=1e-2)


def test_a_model_that_fails_is_named():
    process = VariancePreserving()
    denoiser = Denoiser(lambda x, t: torch.where(x > 0, x, torch.nan), process, predicts="data")
    with pytest.raises(motes.MotesError, match=r"not finite at t=.* for particles"):
        learned_steps(denoiser, 2, shape=(1,), n=16, fine=4)


def test_a_table_without_noise_is_for_samplers_that_weigh_nothing():
    process = VariancePreserving()
    denoiser = gaussian(process, torch.zeros(1), torch.eye(1))
    table = learned_steps(denoiser, 2, shape=(1,), n=16, fine=4)
    with pytest.raises(ValueError, match="has no noise"):
        motes.ReverseDiffusion(denoiser, table, shape=(1,))
    with pytest.raises(ValueError, match="at least 2"):
        learned_steps(denoiser, 2, shape=(1,), fine=1)
