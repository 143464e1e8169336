"""Self-repellent walks: the asymptotic covariance of their frequencies, by the spectrum of the base chain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import motes
from motes.density.self_repellent import SelfRepellentWalk, metropolis
from motes.errors import FileError, MotesError

WALKS, Z = 4000, 4.9
MU = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def independent() -> Tensor:
    return MU.expand(3, 3).contiguous()


def sticky() -> Tensor:
    return 0.5 * independent() + 0.5 * torch.eye(3, dtype=torch.float64)


def ring() -> Tensor:
    edges = torch.eye(5).roll(1, 0) + torch.eye(5).roll(-1, 0)
    return metropolis(edges, torch.tensor([0.0, 0.5, 1.0, -0.5, 0.3]))


def covariance(p: Tensor, mu: Tensor, alpha: float) -> Tensor:
    """n times the covariance of the frequencies, in the end."""
    root = mu.sqrt()
    value, vector = torch.linalg.eigh(root[:, None] * p / root[None, :])
    left = root[:, None] * vector
    value, left = value[:-1], left[:, :-1]  # all but 1
    gain = (1 + value) / ((1 - value) * (1 + 2 * alpha * (1 + value)))
    return (left * gain) @ left.T


@pytest.mark.parametrize("alpha", [0.0, 2.0, 10.0])
@pytest.mark.parametrize("base", [independent, sticky, ring])
def test_the_covariance_of_the_frequencies(base, alpha: float) -> None:
    """Within 14 % in every direction: one standard deviation is 2 %, and what is left of the beginning up to 5 %."""
    steps = 600
    walk = SelfRepellentWalk(base(), steps, alpha=alpha, stride=steps)
    run = motes.sample(walk, WALKS, seed=0, progress=False)
    x = run.view["frequency"]
    found, exact = steps * torch.cov(x.T), covariance(walk.transition, walk.stationary, alpha)
    value, vector = torch.linalg.eigh(exact)
    scaled = vector[:, 1:] / value[1:].sqrt()
    assert torch.allclose(scaled.T @ found @ scaled, torch.eye(len(exact) - 1).double(), atol=0.14)
    assert ((x.mean(0) - walk.stationary).abs() < Z * x.std(0) / WALKS**0.5 + 2 / steps).all()


def test_independent_draws_have_the_closed_form() -> None:
    """(diag mu - mu mu^T) / (1 + 2 alpha)."""
    exact = (MU.diag() - MU[:, None] * MU) / 5
    assert torch.allclose(covariance(independent(), MU, 2.0), exact)


def test_the_stationary_law_of_a_metropolis_chain_is_the_wanted_one() -> None:
    wanted = torch.softmax(torch.tensor([0.0, 0.5, 1.0, -0.5, 0.3], dtype=torch.float64), 0)
    walk = SelfRepellentWalk(ring(), 1)
    assert torch.allclose(walk.stationary, wanted)
    assert torch.allclose(wanted @ walk.transition, wanted)


def test_strides_and_resumption_change_nothing(tmp_path) -> None:
    walk, path = SelfRepellentWalk(ring(), 12, stride=3), tmp_path / "run.motes"
    whole = motes.sample(walk, 30, seed=1, progress=False)
    assert float(whole.view["frequency"].sum(1).sub(1).abs().max()) < 1e-12
    motes.sample(walk, 30, seed=1, progress=False, checkpoint=path, max_steps=2)
    assert torch.equal(motes.resume(path, walk, progress=False).view["frequency"], whole.view["frequency"])
    with pytest.raises(FileError, match="transition"):
        motes.sample(walk, 30, seed=1, progress=False, checkpoint=path, max_steps=2)
        motes.resume(path, SelfRepellentWalk(independent(), 12, stride=3), progress=False)


def test_chains_that_will_not_do_are_errors() -> None:
    with pytest.raises(MotesError, match="sum 1"):
        SelfRepellentWalk(torch.ones(3, 3), 10)
    turning = 0.9 * torch.eye(3).roll(1, 1) + 0.1 * torch.eye(3).roll(-1, 1)
    with pytest.raises(MotesError, match="not reversible"):
        SelfRepellentWalk(turning, 10)
    with pytest.raises(MotesError, match=r"nodes \[2\] cannot be reached"):
        SelfRepellentWalk(torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]), 10)
    with pytest.raises(ValueError, match="alpha"):
        SelfRepellentWalk(independent(), 10, alpha=-1.0)
    with pytest.raises(ValueError, match="multiple"):
        SelfRepellentWalk(independent(), 10, stride=3)
    with pytest.raises(MotesError, match="symmetric"):
        metropolis(torch.eye(3).roll(1, 1), torch.zeros(3))
