"""Even points: each is uniform, together they are a net, and means of smooth functions gain a rate."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from motes.rng import Rng
from motes.rng.quasi import POINTS, _generator, _sobol_digits, lattice, sobol


def address(seed):
    return Rng(seed).at("points")


def test_the_sequence_is_torch_s_before_scrambling():
    theirs = torch.quasirandom.SobolEngine(9, scramble=False).draw(500, dtype=torch.float64)
    assert torch.equal(_sobol_digits(torch.arange(500), 9).double() / 2**30, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_scrambled_points_are_still_a_net(seed):
    """Of 2^k points one falls into each of 2^k slices of every axis, and into each elementary box of the first two."""
    for k in (1, 4, 7, 10):
        u = sobol(address(seed), 1 << k, 6)
        for j in range(6):
            assert torch.equal((u[:, j] * (1 << k)).long().sort().values, torch.arange(1 << k))
        for a in range(k + 1):
            box = (u[:, 0] * (1 << a)).long() * (1 << (k - a)) + (u[:, 1] * (1 << (k - a))).long()
            assert torch.equal(box.sort().values, torch.arange(1 << k))
    plain = Rng(seed).uniform((1024, 1))  # the broken twin: independent points are no net
    assert len((plain * 1024).long().unique()) < 800


@pytest.mark.parametrize("name", POINTS)
def test_each_point_is_uniform_and_so_is_its_place_in_the_square(name):
    """1000 seeds, points 0, 5 and 12 of 16: a distance of 0.09 between distribution functions would be seen."""
    u = torch.stack([POINTS[name](address(s), 16, 2) for s in range(1000)]).numpy()
    for i, j in itertools.product((0, 5, 12), (0, 1)):
        assert stats.kstest(u[:, i, j], "uniform").pvalue > 1e-6
    for i in (0, 5, 12):
        cells = np.bincount((u[:, i, 0] * 8).astype(int) * 8 + (u[:, i, 1] * 8).astype(int), minlength=64)
        assert stats.chisquare(cells).pvalue > 1e-6
    assert 0 < u.min() and u.max() < 1
    bare = _sobol_digits(torch.arange(16), 2).double() / 2**30  # the broken twin: without scrambling
    assert stats.kstest(np.full(1000, float(bare[5, 0])), "uniform").pvalue < 1e-6


def test_a_point_depends_on_its_address_alone():
    whole = sobol(address(1), 200, 5)
    assert torch.equal(sobol(address(1), 64, 5), whole[:64])
    ids = torch.tensor([150, 3, 77])
    assert torch.equal(sobol(address(1).shard(ids), 3, 5), whole[ids])
    assert torch.equal(sobol(address(1), 200, 3), whole[:, :3])
    grid = lattice(address(1), 200, 5)
    assert torch.equal(lattice(address(1).shard(ids), 3, 5, 200), grid[ids])
    assert not (sobol(address(2), 200, 5) == whole).any() and not (lattice(address(2), 200, 5) == grid).any()


def errors(make, n, d, seeds=40):
    """E[prod_j exp(u_j - 1/2) / (2 sinh 1/2)] = 1."""
    scale = 2 * math.sinh(0.5)
    return np.array([float((torch.exp(make(address(s), n, d) - 0.5) / scale).prod(1).mean()) - 1 for s in range(seeds)])


@pytest.mark.parametrize(("name", "rate"), [("sobol", -1.25), ("lattice", -0.85)])
def test_means_of_a_smooth_function_are_unbiased_and_gain_a_rate(name, rate):
    """From 64 to 4096 points the spread must fall like n^rate or faster; independent points give n^-0.5."""
    spread = []
    for n in (64, 4096):
        e = errors(POINTS[name], n, 3)
        assert abs(e.mean()) < 4.9 * e.std(ddof=1) / math.sqrt(len(e))
        spread.append(e.std())
    assert math.log(spread[1] / spread[0]) / math.log(64) < rate
    plain = [errors(lambda r, n, d: r.uniform((n, d)), n, 3).std() for n in (64, 4096)]
    assert math.log(plain[1] / plain[0]) / math.log(64) > -0.7  # the broken twin


def test_lattices_are_made_of_whole_steps():
    for n in (1, 2, 12, 97, 1024, 5000):
        z = _generator(n, 7)
        assert len(z) == 7 and all(math.gcd(c, n) == 1 for c in z)
    u = lattice(address(0), 97, 4)
    step = ((u - u[0]) % 1 * 97).numpy()
    assert np.allclose(step, np.round(step), atol=1e-9)
    assert len(set(_generator(1024, 7))) > 3


def test_limits_are_said():
    with pytest.raises(ValueError, match=r"1\.\.4096"):
        sobol(address(0), 4, 5000)
    with pytest.raises(ValueError, match="points"):
        sobol(address(0), 0, 2)
    with pytest.raises(ValueError, match="at least 1"):
        lattice(address(0), 4, 0)
    with pytest.raises(ValueError, match="shard"):
        lattice(address(0).shard(torch.tensor([9])), 1, 2)
