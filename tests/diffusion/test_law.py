"""The weights of reverse diffusion are right: by quadrature over all noise, and over many runs with resampling."""

import math

import pytest
import torch
from diffusion.linear import F64, Normal, chain, expected_weight

import motes
from motes.diffusion import VarianceExploding, VariancePreserving, gaussian, mixture, reverse

VP = VariancePreserving()
COSINE = VariancePreserving(schedule="cosine", t_max=0.98)
VE = VarianceExploding(sigma_min=0.05, sigma_max=8.0)
PROCESSES = {"vp": VP, "cosine": COSINE, "ve": VE}
MILD = VarianceExploding(sigma_min=0.3, sigma_max=1.5)  # so mild that a coarse grid of nodes integrates it
NARROW = {"vp": (VP, VP.times(9)[[5, 7, 8]]), "ve": (MILD, MILD.times(2))}
GUIDANCE = {"none": None, "reward": "reward", "half": 0.5, "wild": lambda x, t: torch.sin(3 * x) + t}
ONE = Normal(torch.tensor([0.4], dtype=F64), torch.tensor([[0.6]], dtype=F64))
CENTRE, PRECISION = torch.tensor([1.0], dtype=F64), torch.tensor([[1.5]], dtype=F64)


def quadratic(centre, precision):
    return lambda x: -0.5 * torch.einsum("ni,ij,nj->n", x - centre.to(x), precision.to(x), x - centre.to(x))


def one_dimensional(process, steps=2, **kwargs):
    denoiser = gaussian(process, ONE.mean, ONE.covariance)
    kwargs = {"reward": quadratic(CENTRE, PRECISION), "shape": (1,), "dtype": F64, **kwargs}
    return motes.ReverseDiffusion(denoiser, process, steps, **kwargs)


@pytest.mark.parametrize("final", ["denoised", "state"])
@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("integrator", ["ancestral", "euler-maruyama"])
@pytest.mark.parametrize("process", ["vp", "ve"])
def test_the_expected_weight_is_the_normaliser_of_the_discretised_chain(process, integrator, guidance, final):
    """Exact at 2 steps: quadrature over start and noise against the recursion's closed form."""
    process, times = NARROW[process]
    model = one_dimensional(process, times, guidance=GUIDANCE[guidance], integrator=integrator, final=final)
    log_z, law = chain(process, times, ONE, integrator, final).tilted(CENTRE, PRECISION)
    assert expected_weight(model, 48) == pytest.approx(math.exp(log_z), rel=1e-8)
    mean = expected_weight(model, 48, lambda x: x[:, 0]) / math.exp(log_z)
    assert mean == pytest.approx(float(law.mean), rel=1e-7)
