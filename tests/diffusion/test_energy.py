"""Models with densities: energies whose network runs once a point, and mixtures of models."""

import math

import pytest
import torch

import motes
from diffusion.two_modes import F64, NARROW, PROCESS, WIDE, A, B, blind, law, moments, truth
from motes.diffusion import VariancePreserving, gaussian
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.compositions import blend
from motes.diffusion.denoisers.energy import energy_denoiser
from motes.errors import MotesError, ShapeError

X = torch.linspace(-3, 3, 9, dtype=F64)[:, None]


def energy_of(denoiser, calls=None):
    """The exact energy of a model, as a network would give it: with a constant that nobody knows."""

    def network(x, t):
        if calls is not None:
            calls.append(len(x))
        return 7.0 - denoiser.log_density(x, t)

    return energy_denoiser(network, PROCESS, name="energy")


def test_an_energy_has_the_score_and_the_density_of_its_law():
    model = energy_of(A)
    for t in (0.001, 0.2, 0.9):
        assert torch.allclose(model.score(X, t), A.score(X, t), atol=1e-9)
        assert torch.allclose(model.data(X, t), A.data(X, t), atol=1e-9)
        assert torch.allclose(model.log_density(X, t) + 7, A.log_density(X, t), atol=1e-12)
    x = X.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(model.score(x, 0.2).sum(), x)  # guidance differentiates the score
    shift = 1e-5
    rise = (A.score(X + shift, 0.2) - A.score(X - shift, 0.2)) / (2 * shift)
    assert torch.allclose(slope, rise, atol=1e-6)


def test_the_network_runs_once_a_point_and_never_answers_for_another():
    calls = []
    model = energy_of(A, calls)
    motes.sample(Composition([model], [2.0], 10, shape=(1,), dtype=F64), 50, seed=0, progress=False)
    assert sum(calls) == 11 * 50
    model.score(X, 0.5)
    assert torch.allclose(model.log_density(X, 0.1) + 7, A.log_density(X, 0.1))
    assert torch.allclose(model.log_density(X + 0.1, 0.5) + 7, A.log_density(X + 0.1, 0.5))


def test_compositions_of_energies_are_exact_but_for_their_constants():
    """40 runs of 12 steps on the linear scale, alpha 1e-6: the constants come out as they went in."""
    models, exponents = [energy_of(WIDE), energy_of(NARROW)], [-1.0, 2.0]
    log_z, right = truth("guided")
    rows = []
    for seed in range(40):
        model = Composition(models, exponents, 12, shape=(1,), dtype=F64, final="state")
        run = motes.sample(model, 200, seed=seed, progress=False)
        rows.append(moments(run.view[:, 0], torch.exp(run.log_weight - log_z + 7 * sum(exponents)) / 200))
    rows = torch.stack(rows) - torch.cat([torch.ones(1, dtype=F64), right])
    assert float((rows.mean(0) / rows.std(0) * math.sqrt(40)).abs().max()) < 5.8


def test_an_energy_of_another_shape_is_refused():
    model = energy_denoiser(lambda x, t: x, PROCESS)
    with pytest.raises(ShapeError, match="one number a particle"):
        model.score(X, 0.5)


def test_a_blend_is_the_mixture():
    parts = [law([1.0], [-1.0], [0.4]), law([0.2, 0.8], [0.5, 2.0], [0.3, 0.6])]
    whole = law([0.25, 0.75 * 0.2, 0.75 * 0.8], [-1.0, 0.5, 2.0], [0.4, 0.3, 0.6])
    model = blend(parts, [1, 3])
    for t in (0.001, 0.1, 0.8):
        assert torch.allclose(model.data(X, t), whole.data(X, t), atol=1e-10)
        assert torch.allclose(model.log_density(X, t), whole.log_density(X, t), atol=1e-10)
    alone = blend(parts, [1, 1])
    assert not torch.allclose(alone.data(X, 0.1), whole.data(X, 0.1), atol=0.01)  # the twin: other shares


def test_a_blend_is_sampled_and_composed():
    model = blend([A, B], [0.5, 0.5])
    sampler = motes.ReverseDiffusion(model, PROCESS.times(60, "snr"), shape=(1,), dtype=F64)
    run = motes.sample(sampler, 4000, seed=0, progress=False)
    inside = float((run.view > 0).to(F64).mean())
    grid = torch.linspace(0, 12, 20_001, dtype=F64)[:, None]
    right = float(torch.exp(model.log_density(grid, PROCESS.t_min)).sum() * grid[1, 0])
    assert abs(inside - right) < 4.9 * math.sqrt(right * (1 - right) / 4000) + 0.01
    assert Composition([model], [2.0], 5, shape=(1,)).rule == "energy"


def test_what_does_not_mix_is_refused():
    with pytest.raises(MotesError, match="log-density of every model"):
        blend([A, blind(B)], [1, 1])
    with pytest.raises(ValueError, match="positive shares"):
        blend([A, B], [1, 0])
    with pytest.raises(ValueError, match="different processes"):
        blend([A, gaussian(VariancePreserving(), torch.zeros(1), torch.eye(1))], [1, 1])
