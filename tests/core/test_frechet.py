"""The Fréchet distance with its error bar, against the closed form of normal laws."""

import builtins

import pytest
import torch

from motes import Rng
from motes.core.estimate.distances.frechet import frechet_distance
from motes.errors import ShapeError

F64 = torch.float64


def test_the_distance_of_normal_laws():
    """Diagonal covariances: |m - m'|^2 + sum (s - s')^2."""
    pytest.importorskip("torchmetrics")
    std, other, gap = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.6, 0.5, 1.5]), torch.tensor([0.3, 0.0, -0.4])
    truth = float(gap.square().sum() + (std - other).square().sum())
    z = []
    for i in range(10):
        a, b = std * Rng(i).at("a").normal((400, 3)), gap + other * Rng(i).at("b").normal((400, 3))
        found = frechet_distance(a, b)
        z.append(float((found.value - truth) / found.se))
    assert max(map(abs, z)) < 4.9
    assert abs(sum(z)) < 4.9 * 10**0.5
    same = frechet_distance(std * Rng(90).at("a").normal((400, 3)), std * Rng(91).at("a").normal((400, 3)))
    assert abs(float(same.value)) < 4.9 * float(same.se)


def test_features_that_do_not_fit():
    pytest.importorskip("torchmetrics")
    with pytest.raises(ShapeError, match="at least 20 rows"):
        frechet_distance(torch.zeros(10, 3), torch.zeros(40, 3))
    with pytest.raises(ShapeError, match="need features"):
        frechet_distance(torch.zeros(40, 3), torch.zeros(40, 2))


def test_a_missing_torchmetrics_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"motes\[distances\]"):
        frechet_distance(torch.zeros(40, 3), torch.zeros(40, 3))
