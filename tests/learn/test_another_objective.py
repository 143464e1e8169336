"""A checkpoint belongs to one objective and its data: the same goes on to the same bits, another is refused."""

import dataclasses
import logging
import math
import threading
import types
from functools import cached_property, partial

import pytest
import torch
from torch import nn

from motes import Rng
from motes.core.files import store
from motes.errors import FileError, MotesError, MotesWarning, ShapeError, WrongType
from motes.learn import Objective, Plan, PointNetwork, build, fit
from motes.learn.checkpoint import change
from motes.learn.loop import parted, probe

POINTS = Rng(0).at("points").normal((40, 2), dtype=torch.float32)
PLAN = Plan(steps=4, batch=8, every=2)


class Normed(nn.Module):
    """A network whose answers depend on its mode, and which counts what it met in training."""

    def __init__(self):
        super().__init__()
        self.inner = build(lambda: PointNetwork(2, width=4, depth=1), seed=Rng(1))
        self.norm, self.drop = nn.BatchNorm1d(2), Dropping()

    def forward(self, x, t):
        return self.inner(self.drop(self.norm(x)), t)


class Dropping(nn.Module):
    """Every second point of a batch is dropped in training."""

    def forward(self, x):
        return x * (torch.arange(len(x)) % 2)[:, None] if self.training else x


def guess(network, batch):
    return network(batch[0], torch.zeros(len(batch[0])))


def f(network, rng, batch):
    return (guess(network, batch) - batch[0]).square().mean(1)


def g(network, rng, batch):
    return (guess(network, batch) - 2 * batch[0]).square().mean(1)


def scaled(k, network, rng, batch):
    return (guess(network, batch) - k * batch[0]).square().mean(1)


def closed(k):
    return lambda network, rng, batch: scaled(k, network, rng, batch)


class Scaled(Objective):
    def __init__(self, k):
        self.k = k

    def __call__(self, network, rng, batch):
        return scaled(self.k, network, rng, batch)


class Noisy(Scaled):
    def __call__(self, network, rng, batch):
        return super().__call__(network, rng, (batch[0] + rng.at("noise").normal((len(batch[0]), 2), torch.float32),))


class Locked(Scaled):
    def __init__(self, k):
        super().__init__(k)
        self.lock, self.log = threading.Lock(), logging.getLogger("a training")

    def __call__(self, network, rng, batch):
        with self.lock:
            self.log.debug("a batch of %d", len(batch[0]))
            return super().__call__(network, rng, batch)


class Counting(Scaled):
    """It counts its calls for a log, in a field that it was made with."""

    calls = 0

    def __call__(self, network, rng, batch):
        self.calls += 1
        return super().__call__(network, rng, batch)


class Compiled:
    """What makes its inner function at the first call and takes every attribute from it, as compilers' wrappers do."""

    def __init__(self, inner):
        self.inner, self.back = inner, self

    @cached_property
    def made(self):
        return [self.inner]

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def __call__(self, *given):
        return self.made[0](*given)


SOURCE = """
K = 2
def helper(x): return x + 1
def objective(network, rng, batch, scale=1.0):
    return (network(batch[0], batch[0][:, 0]) - helper(K * scale * batch[0])).square().mean(1)
"""


def made(text: str):
    """A function as another process would make it of this text."""
    module = types.ModuleType("users")
    exec(text, module.__dict__)
    return module.objective


def fitted(objective, path, data=POINTS, *, net=None, plan=PLAN, **more):
    return fit(Normed() if net is None else net, objective, data, plan=plan, path=path, progress=False, **more)


def bits(found):
    return torch.cat([found.losses, *(v.flatten().double() for v in found.network.state_dict().values())])


@pytest.mark.parametrize(
    "make",
    [
        lambda: f,
        lambda: closed(1.5),
        lambda: closed(torch.tensor([1.0, 2.0])),
        lambda: partial(scaled, 1.5),
        lambda: Scaled(1.5).__call__,
        lambda: Noisy(1.5),
        lambda: Locked(1.5),
        lambda: Counting(1.5),
        lambda: Compiled(f),
        lambda: made(SOURCE),
    ],
)
def test_the_same_objective_goes_on_to_the_same_bits(make, tmp_path, recwarn):
    """Also one that was called meanwhile, with a network that norms and drops; what a checkpoint asks moves nothing."""
    whole = bits(fitted(make(), None))
    fitted(begun := make(), tmp_path / "t", until=2)
    assert torch.equal(bits(fitted(begun, tmp_path / "t", until=3))[:3], whole[:3])
    for _ in range(2):  # to the end, and once more at the end
        assert torch.equal(bits(fitted(make(), tmp_path / "t")), whole)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f, g),
        (closed(1.0), closed(1.01)),
        (closed(torch.ones(2)), closed(2 * torch.ones(2))),
        (partial(scaled, 1.0), partial(scaled, 3.0)),
        (Scaled(1.0).__call__, Scaled(3.0).__call__),
        (Scaled(1.0), Scaled(0.99)),
        (Noisy(1.0), Noisy(3.0)),
        (Compiled(f), Compiled(g)),
        (made(SOURCE), made(SOURCE.replace("K = 2", "K = 3"))),
        (made(SOURCE), made(SOURCE.replace("x + 1", "x - 1"))),
        (made(SOURCE), made(SOURCE.replace("scale=1.0", "scale=2.0"))),
        (made(SOURCE), made(SOURCE.replace("helper(K", "helper(-K"))),
    ],
)
def test_another_is_refused_and_leaves_the_network_as_it_was(one, other, tmp_path):
    fitted(one, tmp_path / "t", until=2)
    net = Normed()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    says = r"t is of another objective: the loss of one of its examples was \S+ when it was saved and is \S+ now\."
    with pytest.raises(FileError, match=says):
        fitted(other, tmp_path / "t", net=net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(bits(fitted(one, tmp_path / "t")), bits(fitted(one, None)))


def test_a_change_that_is_too_small_to_see_is_not_claimed(tmp_path):
    fitted(Scaled(1.0), tmp_path / "t", until=2)
    assert len(fitted(Scaled(1.0 + 1e-6), tmp_path / "t").losses) == 4


def test_an_objective_of_another_class_is_refused_by_its_name(tmp_path):
    fitted(Scaled(1.0), tmp_path / "t", until=2)
    with pytest.raises(FileError, match=r"of another training: objective: there Scaled, here Counting\. Take back"):
        fitted(Counting(1.0), tmp_path / "t")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"data": POINTS + 1e-3 * (torch.arange(40) == 3)[:, None]},
            r"data\[0\]\.digest: there \w{16}, here \w{16}\. T",
        ),
        ({"data": POINTS[:30]}, r"data\[0\]\.shape\[0\]: there 40, here 30; data\[0\]\.digest"),
        ({"data": (POINTS, POINTS)}, r"data: there \[.*, here \["),
        ({"plan": dataclasses.replace(PLAN, rate=1e-3)}, r"plan\.rate: there 0\.002, here 0\.001"),
        ({"seed": 1}, r"seed: there 0, here 1"),
    ],
)
def test_other_data_another_plan_and_another_seed_are_refused(change, says, tmp_path):
    fitted(f, tmp_path / "t", until=2)
    with pytest.raises(FileError, match=f"of another training: {says}"):
        fitted(f, tmp_path / "t", **change)
    assert len(fitted(f, tmp_path / "t", POINTS.clone()).losses) == 4


def test_an_objective_with_random_numbers_of_its_own_goes_on_with_a_warning(tmp_path):
    own = torch.Generator().manual_seed(0)

    def restless(network, rng, batch):
        return f(network, rng, batch) * torch.rand(len(batch[0]), generator=own)

    fitted(restless, tmp_path / "t", until=2)
    with pytest.warns(
        MotesWarning, match=r"cannot be told: asked twice .* gives other losses\. Draw random numbers from"
    ):
        fitted(restless, tmp_path / "t")


@pytest.mark.parametrize(
    ("then", "now", "by"),
    [
        ([1.0, 3.0], [1.0, 3.0], 0.0),
        ([1.0, 3.0], [1.0 + 2e-3, 3.0 - 4e-3], 1.5e-3),
        ([-1.0, -3.0], [1.0, -3.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], math.inf),
        ([math.nan, math.inf, -math.inf, 1.0], [math.nan, math.inf, -math.inf, 1.5], 0.5),
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([1.0, 1.0], [1.0, math.nan], math.inf),
        ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ([math.inf], [1.0], math.inf),
        ([1.0, 1.0], [1.0], math.inf),
    ],
)
def test_how_far_losses_moved(then, now, by):
    assert change(*(torch.tensor(v, dtype=torch.float64) for v in (then, now))) == pytest.approx(by, rel=1e-9)


def test_losses_that_are_not_quite_the_same_are_said(tmp_path):
    """As when brain floats are gone on from in single precision."""
    whole = fitted(f, tmp_path / "whole")
    fitted(f, tmp_path / "t", until=2)

    def rounded(network, rng, batch):
        return f(network, rng, batch) * (1 + 0.003 * (rng.purpose == "probe"))

    with pytest.warns(MotesWarning, match="not quite what they were"):
        assert torch.equal(fitted(rounded, tmp_path / "t").losses, whole.losses)


def test_a_checkpoint_holds_the_losses_of_the_averaged_network_and_no_others(tmp_path):
    found = fitted(f, tmp_path / "t", until=2)
    trees, meta = store.read(tmp_path / "t")
    some = parted((POINTS,), PLAN, Rng(0))[0][:8]
    assert torch.equal(trees["probe"], f(found.network, Rng(0), (POINTS[some],)).double())
    store.write(tmp_path / "t", {**trees, "probe": trees["probe"][1:]}, meta)
    with pytest.raises(FileError, match="of another objective: it gives 8 losses where 7 were saved"):
        fitted(f, tmp_path / "t")


@pytest.mark.parametrize(
    ("other", "kind", "says"),
    [
        (lambda network, rng, batch: f(network, rng, batch).mean(), ShapeError, "one loss for each of 8 examples, not"),
        (lambda network, rng, batch: batch[1], IndexError, "tuple index"),
    ],
)
def test_what_an_objective_raises_when_it_is_asked_is_said(other, kind, says, tmp_path):
    fitted(f, tmp_path / "t", until=2)
    net = Normed()
    first = next(net.parameters()).clone()
    with pytest.raises(kind, match=says):
        fitted(other, tmp_path / "t", net=net)
    assert torch.equal(next(net.parameters()), first)


@pytest.mark.parametrize("turned_on", [False, True])
def test_a_loss_that_holds_a_gradient_turns_gradients_on(turned_on, tmp_path, recwarn):
    """Where it does not, the training goes on without checkpoints and says so."""

    def steep(network, rng, batch):
        with torch.set_grad_enabled(turned_on or torch.is_grad_enabled()):
            x = batch[0].clone().requires_grad_()
            (slope,) = torch.autograd.grad(guess(network, (x,)).sum(), x, create_graph=True)
            return f(network, rng, (x,)) + slope.square().mean(1)

    plan = dataclasses.replace(PLAN, held_out=0.0)
    whole = bits(fitted(steep, None, plan=plan))
    assert torch.equal(bits(fitted(steep, tmp_path / "t", plan=plan)), whole)
    assert (tmp_path / "t").exists() == turned_on
    said = [str(w.message) for w in recwarn.list]
    assert len(said) == (0 if turned_on else 2) and all("could not be written" in s and "grad" in s for s in said)


def test_a_probe_asks_in_evaluation_mode_and_leaves_modes_and_buffers():
    net = Normed().train()
    net.norm.eval()
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]

    def spied(network, rng, batch):
        assert not any(m.training for m in network.modules()) and not torch.is_grad_enabled()
        return f(network, rng, batch)

    found = probe(net, spied, (POINTS[:5],), Rng(0))
    assert found.dtype == torch.float64 and torch.equal(found, f(net.eval(), Rng(0), (POINTS[:5],)).double())
    net.train()
    net.norm.eval()
    with pytest.raises(IndexError):
        probe(net, lambda network, rng, batch: batch[1], (POINTS[:5],), Rng(0))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())


def test_what_cannot_be_trained_says_what_to_do():
    def network():
        return build(lambda: PointNetwork(2, width=4, depth=1), seed=Rng(1))

    with pytest.raises(ShapeError, match=r"data are torch\.float64, the network torch\.float32: .*data\.to\(torch\.fl"):
        fitted(f, None, POINTS.double())
    with pytest.raises(WrongType, match=r"not ndarray: torch\.as_tensor"):
        fitted(f, None, POINTS.numpy())
    with pytest.raises(WrongType, match=r"give an instance of it, Scaled\("):
        fitted(Scaled, None)
    with pytest.raises(MotesError, match="no parameters to train"):
        fit(torch.nn.Identity(), f, POINTS, plan=PLAN, progress=False)
    assert fitted(lambda n, r, b: n(b[0], b[0][:, 0]).sum(1), None, POINTS.double(), net=network().double())
