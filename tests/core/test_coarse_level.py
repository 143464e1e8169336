"""Error bars of means carry what a coarser rule differs by: kept in files, over populations, or a reason."""

import math

import pytest
import torch

import motes
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.particles import Particles
from motes.errors import FileError

F64 = torch.float64


class Shifted(motes.FeynmanKac):
    """Normal numbers, off by 0.3 for a rule whose coarser version is off by 0.9; weights exp(x / 2)."""

    off = 0.3

    def init(self, rng, n):
        z = rng.at("z").normal((n,), dtype=F64)
        return Particles.start({"x": z + self.off}, 0.5 * z)

    def step(self, rng, particles):
        return particles.step(particles.x, torch.zeros(particles.n, dtype=F64))

    def done(self, particles):
        return particles.t >= 1

    def coarse_level(self, particles):
        row = torch.arange(0, particles.n, 4)
        level = {name: value[row] + 2 * self.off for name, value in particles.x.items()}
        return CoarseLevel(level, particles.log_weight[row], row, 0.5)


class Blind(Shifted):
    """The twin that does not know."""

    def coarse_level(self, particles):
        return None


def run(model, n=400, **kwargs):
    return motes.sample(model, n, seed=4, ess_threshold=0, progress=False, **kwargs)


def test_the_bar_of_a_mean_carries_the_rule():
    found, twin = run(Shifted()).mean("x"), run(Blind()).mean("x")
    assert float(found.value) == float(twin.value) and float(found.se) == pytest.approx(math.hypot(float(twin.se), 0.3))
    assert abs(float(found.value) - 0.5) < 2 * float(found.se) and abs(float(twin.value) - 0.5) > 4 * float(twin.se)
    square = run(Shifted()).mean(lambda v: v["x"].square())
    assert float(square.se) > float(run(Blind()).mean(lambda v: v["x"].square()).se)
    assert torch.equal(run(Shifted()).particles_mean(run(Shifted()).values("x")).se, twin.se)


def test_it_is_kept_in_a_file_and_over_populations(tmp_path):
    found = run(Shifted())
    read = motes.load(found.save(tmp_path / "run"))
    assert torch.equal(read.mean("x").se, found.mean("x").se)
    several, blind = run(Shifted(), replicas=8), run(Blind(), replicas=8)
    assert float(several.mean("x").se) == pytest.approx(math.hypot(float(blind.mean("x").se), 0.3))
    assert several.coarse is not None and len(several.coarse.beside) == 800
    assert torch.equal(motes.load(several.save(tmp_path / "several")).mean("x").se, several.mean("x").se)


def test_other_weights_of_the_same_particles_are_a_level_too():
    x = torch.tensor([0.0, 1.0, 3.0], dtype=F64)
    level = CoarseLevel(None, torch.log(torch.tensor([0.0, 1.0, 1.0], dtype=F64)), torch.arange(3), 2.0)
    assert float(level.error(None, x, torch.zeros(3, dtype=F64))) == pytest.approx(2 * (2 - 4 / 3))


def test_what_is_no_function_of_the_draws_has_no_bar():
    found = run(Shifted())
    fixed = found.view["x"]
    estimate = found.mean(lambda _: fixed)
    assert math.isnan(float(estimate.se)) and "f is asked of others too" in estimate.reason
    few = run(Shifted(), 4).mean("x")
    assert math.isnan(float(few.se)) and few.reason


@pytest.mark.parametrize(
    "name, value",
    [
        ("beside", torch.tensor([9])),
        ("beside", torch.tensor([0, 1])),
        ("view", torch.zeros(2)),
        ("share", torch.tensor(math.nan)),
    ],
)
def test_a_file_of_another_is_refused(name, value):
    state = CoarseLevel(torch.zeros(1), torch.zeros(1, dtype=F64), torch.tensor([0]), 0.5).state()
    assert CoarseLevel.from_state(state, 4).share == 0.5
    with pytest.raises(FileError):
        CoarseLevel.from_state({**state, name: value}, 4)
