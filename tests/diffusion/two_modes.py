"""Mixtures of two normals on the line, and their compositions by quadrature, for tests of compositions."""

from __future__ import annotations

import torch

from motes.diffusion import Denoiser, VariancePreserving, mixture
from motes.diffusion.composing.composition import Composition

F64 = torch.float64
PROCESS = VariancePreserving(beta_min=6.0, beta_max=6.0, t_min=1e-3 / 6, t_max=1.0)  # noise rate 1 up to time 6
GRID = torch.linspace(-14, 14, 40_001, dtype=F64)


def law(weights, means, stds):
    """A mixture on the line, as an exact denoiser."""
    weights, means, stds = (torch.tensor(a, dtype=F64) for a in (weights, means, stds))
    return mixture(PROCESS, weights, means[:, None], stds[:, None, None] ** 2)


A = law([0.3, 0.7], [-2.0, 1.5], [0.5, 0.8])
B = law([0.6, 0.4], [-1.0, 2.0], [0.9, 0.6])
WIDE = law([0.3, 0.7], [-2.0, 1.5], [0.8, 0.9])
NARROW = law([0.6, 0.4], [-1.0, 2.0], [0.6, 0.6])
CASES = {
    "cold": ([A], [2.0]),
    "warm": ([A], [0.5]),
    "guided": ([WIDE, NARROW], [-1.0, 2.0]),
    "half": ([WIDE, NARROW], [0.5, 0.5]),
    "product": ([A, B], [1.0, 1.0]),
}


def curved(x):
    """A reward: sin 2x + x / 2."""
    return torch.sin(2 * x[:, 0]) + x[:, 0] / 2


def truth(case, reward=None):
    """The log normaliser and (E x, E x^2, P(x > 0)) of a composition at t_min."""
    models, exponents = CASES[case]
    at = GRID[:, None]
    log_p = sum(w * m.log_density(at, PROCESS.t_min) for w, m in zip(exponents, models, strict=True))
    p = torch.exp(log_p if reward is None else log_p + reward(at)) * (GRID[1] - GRID[0])
    return float(p.sum().log()), (moments(GRID, p) / p.sum())[1:]


def moments(x, weight):
    """(4,): the sum of the weights, and of them times x, x^2 and [x > 0]."""
    return torch.stack([weight.sum(), weight @ x, weight @ x.square(), weight @ (x > 0).to(F64)])


def blind(denoiser):
    """The same model without its log-density."""
    return Denoiser(denoiser.model, denoiser.process, predicts="data")


def made(case, steps, **options):
    """A composition in float64 whose images are its states."""
    models, exponents = CASES[case]
    return Composition(models, exponents, steps, **{"shape": (1,), "final": "state", "dtype": F64, **options})
