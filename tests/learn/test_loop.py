"""The loop that fits networks: the same bits after an interrupt, honest held-out losses, errors that name the cause."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from motes import Rng
from motes.core.files import store as files
from motes.errors import FileError, MotesWarning, ShapeError
from motes.learn import Diverged, Objective, Plan, PointGenerator, PointNetwork, build, fit, initialise

POINTS = Rng(0).at("points").normal((400, 2), dtype=torch.float32)
SHORT = Plan(steps=30, batch=32, every=10)


@dataclass(frozen=True)
class Cleaning(Objective):
    """The squared error of points guessed from noisy ones: an objective that draws."""

    strength: float = 0.5

    def __call__(self, network, rng, batch):
        level = rng.at("level").uniform((len(batch[0]),), dtype=torch.float32)
        noise = rng.at("noise").normal(tuple(batch[0].shape), dtype=torch.float32)
        return (network(batch[0] + self.strength * level[:, None] * noise, level) - batch[0]).square().mean(1)


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def points_network() -> PointNetwork:
    return build(lambda: PointNetwork(2, width=16, depth=1), seed=Rng(1))


class SquaredError(Objective):
    def __call__(self, network, rng, batch):
        return (network(batch[0]) - batch[1]).square().mean(1)


def test_a_line_is_found_by_several_tensors_of_data():
    """y = 2 x - 1 for a linear network; averaged weights that are kept too long stand elsewhere."""
    x = Rng(0).normal((500, 1), dtype=torch.float32)
    plan = Plan(steps=300, batch=64, rate=5e-2, warm_up=10, average=0.95)
    for average, near in ((0.95, True), (0.9999, False)):
        line = build(lambda: nn.Linear(1, 1), seed=Rng(1))
        with_average = dataclasses.replace(plan, average=average, steps=300 if near else 5)
        fitted = fit(line, SquaredError(), (x, 2 * x - 1), plan=with_average, progress=False)
        assert torch.allclose(weights(fitted.network), torch.tensor([2.0, -1.0]), atol=1e-3) == near


def test_the_rate_rises_and_falls_like_a_cosine():
    plan = Plan(steps=100, rate=0.5, warm_up=10)
    assert plan.rate_at(0) == pytest.approx(0.05) and plan.rate_at(50) == pytest.approx(0.25)
    assert max(plan.rate_at(k) for k in range(100)) < 0.5 and plan.rate_at(99) < 1e-3


def test_networks_begin_where_their_weights_say():
    """A layer called last is zero, biases are zero, norms are one; everything else is normal, scaled by fan-in."""
    network = build(
        lambda: nn.ModuleDict({"norm": nn.LayerNorm(3), "wide": nn.Linear(400, 300), "last": nn.Linear(3, 2)}), seed=3
    )
    assert [float(p.detach().abs().sum()) for n, p in network.named_parameters() if "wide.weight" not in n] == [
        3,
        0,
        0,
        0,
        0,
    ]
    assert float(network["wide"].weight.detach().std() * 20) == pytest.approx(1, abs=0.02)
    generator = build(lambda: PointGenerator(3, width=16), seed=Rng(0))
    before = weights(generator)
    initialise(generator, seed=1)
    assert not torch.equal(weights(generator), before)
    initialise(generator, seed=Rng(0))
    assert torch.equal(weights(generator), before) and generator(torch.zeros(5, 3)).shape == (5, 3)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        initialise(generator, seed="0")


def test_a_broken_off_training_ends_like_a_whole_one(tmp_path):
    """Bit for bit, with the losses and held-out losses; and the seed matters."""
    objective, path = Cleaning(), tmp_path / "training.motes"
    whole = fit(points_network(), objective, POINTS, plan=SHORT, seed=5, progress=False)
    first = fit(points_network(), objective, POINTS, plan=SHORT, seed=5, path=path, until=13, progress=False)
    rest = fit(points_network(), objective, POINTS, plan=SHORT, seed=5, path=path, progress=False)
    assert len(first.losses) == 13 and torch.equal(rest.losses, whole.losses)
    assert torch.equal(weights(rest.network), weights(whole.network))
    assert [row for row in rest.held_out if row[0] % 10 == 0] == whole.held_out and len(whole.held_out) == 3
    other = fit(points_network(), objective, POINTS, plan=SHORT, seed=6, progress=False)
    assert not torch.equal(weights(other.network), weights(whole.network))
    for change in (
        {"objective": Cleaning(5.0)},
        {"plan": dataclasses.replace(SHORT, rate=1e-3)},
        {"seed": 6},
        {"data": POINTS[:300]},
    ):
        given = {"objective": objective, "data": POINTS, "plan": SHORT, "seed": 5} | change
        with pytest.raises(FileError, match="of another objective" if "objective" in change else "of another training"):
            fit(points_network(), path=path, progress=False, **given)
    with pytest.raises(FileError, match="of another network"):
        wide = build(lambda: PointNetwork(2, width=24, depth=1), seed=Rng(1))
        fit(wide, objective, POINTS, plan=SHORT, seed=5, path=path, progress=False)


def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    objective, path = Cleaning(), tmp_path / "training.motes"
    whole = fit(points_network(), objective, POINTS, plan=SHORT, seed=5, progress=False)
    fit(points_network(), objective, POINTS, plan=SHORT, seed=5, path=path, until=23, progress=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(MotesWarning, match=r"truncated.* The checkpoint before it, .* stands at step 20"):
        rest = fit(points_network(), objective, POINTS, plan=SHORT, seed=5, path=path, progress=False)
    assert torch.equal(weights(rest.network), weights(whole.network)) and torch.equal(rest.losses, whole.losses)


def test_a_checkpoint_of_training_that_fails_is_a_warning(tmp_path, monkeypatch):
    whole = fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, progress=False)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("motes.core.files.store.save_file", full)
    with pytest.warns(MotesWarning, match="step 10 could not be written"):
        again = fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, path=tmp_path / "t", progress=False)
    assert torch.equal(weights(again.network), weights(whole.network)) and list(tmp_path.iterdir()) == []


def test_two_trainings_do_not_share_a_path(tmp_path):
    class Nested(Cleaning):
        def __call__(self, *given):
            with pytest.raises(FileError, match="is being written by process"):
                fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, path=tmp_path / "t", progress=False)
            return super().__call__(*given)

    fit(points_network(), Nested(), POINTS, plan=SHORT, seed=5, path=tmp_path / "t", until=2, progress=False)


@pytest.mark.parametrize("change", [{"steps": "3"}, {"steps": 10**6}, {"held_out": [1]}, {"training": 3}])
def test_what_no_training_wrote_is_refused(change, tmp_path):
    path = tmp_path / "t"
    fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, path=path, until=2, progress=False)
    trees, meta = files.read(path)
    files.write(path, trees, {**meta, **change})
    with pytest.raises(FileError):
        fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, path=path, progress=False)
    for name in trees:
        files.write(path, {**trees, name: {"a": {"b": [3]}}}, meta)
        with pytest.raises(FileError):
            fit(points_network(), Cleaning(), POINTS, plan=SHORT, seed=5, path=path, progress=False)


def test_training_and_building_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    network = build(lambda: PointNetwork(3), seed=Rng(0))
    again = build(lambda: PointNetwork(3), seed=Rng(0))
    fit(points_network(), Cleaning(), POINTS, plan=SHORT, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(network), weights(again))
    with pytest.raises(ValueError, match="buffers"):
        build(lambda: nn.BatchNorm1d(3), seed=Rng(0))


def test_held_out_examples_are_never_trained_on():
    """NaN in the examples kept aside harms the held-out loss only; in the others it is named."""
    aside = Rng(0).at("held out").permutation(len(POINTS))[:40]
    data = POINTS.clone()
    data[aside] = torch.nan
    fitted = fit(points_network(), Cleaning(), data, plan=SHORT, seed=0, progress=False)
    assert bool(torch.isfinite(fitted.losses).all()) and math.isnan(fitted.held_out[-1][1])
    data = POINTS.clone()
    data[17] = torch.nan
    assert 17 not in aside
    with pytest.raises(Diverged, match=r"step \d+: the loss of examples \[17.* is NaN or infinite"):
        fit(points_network(), Cleaning(), data, plan=Plan(steps=200, batch=64), progress=False)


class Total(Cleaning):
    """An objective that forgets that examples have losses of their own."""

    def __call__(self, network, rng, batch):
        return super().__call__(network, rng, batch).mean()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="one length"):
        fit(points_network(), Cleaning(), (POINTS, torch.zeros(3)), plan=SHORT, progress=False)
    with pytest.raises(ShapeError, match="one loss"):
        fit(points_network(), Total(), POINTS, plan=SHORT, progress=False)
    with pytest.raises(ValueError, match="average"):
        Plan(average=1.0)
