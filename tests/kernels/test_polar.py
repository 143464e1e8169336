"""Polar slices against the Student t law, whose radius has an F law in any dimension."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import f as fisher
from torch import Tensor

from bent import after, bias
from motes.errors import MotesError
from motes.kernels import State, Target, polar
from motes.kernels.polar import PolarSlice
from motes.rng import Rng
from motes.testing import check_kernel
from motes.testing.exact_laws import Bent, bent

N, Z = 40_000, 4.9  # two-sided level 1e-6


class Student(Target):
    """The d-dimensional Student t law with nu degrees of freedom; 1 is the Cauchy law."""

    def __init__(self, nu: float):
        self.nu = nu

    def evaluate(self, position: Tensor, gradient: bool) -> State:
        power = 0.5 * (self.nu + position.shape[1])
        return {"position": position, "value": -power * torch.log1p(position.square().sum(1) / self.nu)}

    def log_density(self, state: State) -> Tensor:
        return state["value"]

    def gradient(self, state: State) -> Tensor:
        x = state["position"]
        return -(self.nu + x.shape[1]) / (self.nu + x.square().sum(1, keepdim=True)) * x

    def draw(self, rng: Rng, n: int, d: int) -> Tensor:
        scale = rng.at("scale").gamma((n, 1), self.nu / 2) / (self.nu / 2)
        return rng.normal((n, d)) / scale.sqrt()


def kolmogorov(x: Tensor, nu: float) -> float:
    """sqrt(N) times the distance of the law of r^2 / d from F(d, nu); 2.7 is level 1e-6."""
    d = x.shape[1]
    u = torch.as_tensor(fisher.cdf((x.square().sum(1) / d).numpy(), d, nu)).sort().values
    grid = torch.arange(len(u) + 1) / len(u)
    return float(torch.maximum((u - grid[:-1]).abs(), (u - grid[1:]).abs()).max()) * math.sqrt(len(u))


@pytest.mark.parametrize("d", [2, 3])
def test_a_curved_law_is_invariant(d: int) -> None:
    check_kernel(PolarSlice(), on=bent(d))


def test_so_it_is_in_other_coordinates() -> None:
    factor = torch.tensor([[1.5, 0.0], [0.8, 0.7]], dtype=torch.float64)
    mean = torch.tensor([[1.0, -0.5], [0.3, 0.9]], dtype=torch.float64)
    knobs = {"mean": mean, "scale": torch.stack([factor] * 2), "spread": torch.tensor([0.2, 1.0], dtype=torch.float64)}
    check_kernel(PolarSlice(), on=bent(), parameters=knobs, n=N + 1)
    check_kernel(PolarSlice(width=0.5, steps=2), on=bent())


@pytest.mark.parametrize(("nu", "d"), [(1.0, 2), (1.0, 30), (4.0, 10)])
def test_the_radius_of_a_student_law(nu: float, d: int) -> None:
    """From the unit sphere, far below the typical radius; would catch probabilities of the radius off by 0.04."""
    x = Rng(0).normal((4000, d))
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    y = after(PolarSlice(), Rng(1), x, 40, Student(nu), {"spread": torch.full((2,), 0.8, dtype=torch.float64)})
    assert kolmogorov(y, nu) < 2.7
    assert kolmogorov(x, nu) > 2.7


def test_heavy_tails_in_any_dimension_are_forgotten_alike() -> None:
    """The correlation of log r with its start, for the Cauchy law, does not grow with the dimension."""
    found = []
    for d in (3, 30, 300):
        law, n = Student(1.0), 4000
        x = law.draw(Rng(0), n, d)
        kernel = PolarSlice()
        state, weight = law.evaluate(x, False), torch.full((n,), 1 / n, dtype=torch.float64)
        parameters = kernel.fit(kernel.start(d, x.dtype), law, state, weight)
        parameters = {**kernel.start(d, x.dtype), "spread": parameters["spread"]}
        y = after(kernel, Rng(1), x, 2, law, parameters)
        before, later = (torch.linalg.vector_norm(v, dim=1).log() for v in (x, y))
        found.append(float(torch.corrcoef(torch.stack([before, later]))[0, 1]))
        assert kolmogorov(y, 1.0) < 2.7
    assert max(found) < 0.6 and found[2] < found[0] + 0.1, found


def test_with_another_power_of_the_radius_it_is_not_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    right = polar.step_out

    def wrong(rng, target, curve, *rest):
        return right(rng, target, lambda i, t: (curve(i, t)[0], 0.5 * curve(i, t)[1]), *rest)

    shrink = polar.shrink

    def wrong_too(rng, target, curve, *rest):
        return shrink(rng, target, lambda i, t: (curve(i, t)[0], 0.5 * curve(i, t)[1]), *rest)

    monkeypatch.setattr(polar, "step_out", wrong)
    monkeypatch.setattr(polar, "shrink", wrong_too)
    assert bias(after(PolarSlice(), Rng(1), Bent.draw(Rng(0), N))) > Z


def test_a_particle_in_the_very_middle_stays_finite() -> None:
    x = torch.zeros(100, 2, dtype=torch.float64)
    assert bool(torch.isfinite(after(PolarSlice(), Rng(0), x)).all())


def test_one_dimension_has_no_circles() -> None:
    with pytest.raises(MotesError, match="two dimensions"):
        PolarSlice().start(1, torch.float64)
    with pytest.raises(ValueError, match="width"):
        PolarSlice(width=-1.0)
