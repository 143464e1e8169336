"""A checkpoint belongs to one objective and its data: the same goes on, another is refused with what differs."""

import threading
import types
from functools import partial

import pytest
import torch

from motes import Rng
from motes.errors import FileError, MotesError, MotesWarning, ShapeError, WrongType
from motes.learn import Objective, Plan, PointNetwork, build, fit
from motes.learn.identity import differences, identity

POINTS = Rng(0).at("points").normal((40, 2), dtype=torch.float32)
PLAN = Plan(steps=4, batch=8, every=2)


def network() -> PointNetwork:
    return build(lambda: PointNetwork(2, width=4, depth=1), seed=Rng(1))


def guess(network, batch):
    return network(batch[0], torch.zeros(len(batch[0])))


def f(network, rng, batch):
    return (guess(network, batch) - batch[0]).square().mean(1)


def g(network, rng, batch):
    return (guess(network, batch) - 2 * batch[0]).square().mean(1)


class Scaled(Objective):
    def __init__(self, k):
        self.k = k

    def __call__(self, network, rng, batch):
        return (guess(network, batch) - self.k * batch[0]).square().mean(1)


def closed(k):
    return lambda network, rng, batch: (guess(network, batch) - k * batch[0]).square().mean(1)


def named_like_a_part(code):
    return lambda network, rng, batch: (guess(network, batch) - code * batch[0]).square().mean(1)


def fitted(objective, path, data=POINTS, **more):
    return fit(network(), objective, data, plan=PLAN, path=path, progress=False, **more)


@pytest.mark.parametrize(
    ("same", "other", "says"),
    [
        (lambda: f, lambda: g, r"objective\.name: there \S*\.f, here \S*\.g"),
        (lambda: Scaled(1.0), lambda: Scaled(3.0), r"objective\.k: there 1\.0, here 3\.0"),
        (lambda: closed(1.0), lambda: closed(3.0), r"objective\.k: there 1\.0, here 3\.0"),
        (lambda: closed(torch.ones(2)), lambda: closed(2 * torch.ones(2)), r"objective\.k: there \w{16}, here \w{16}"),
        (lambda: named_like_a_part(1.0), lambda: named_like_a_part(3.0), r"objective\.code': there 1\.0, here 3\.0"),
        (lambda: Scaled(1.0).__call__, lambda: Scaled(3.0).__call__, r"objective\.of\.k: there 1\.0"),
        (lambda: partial(f), lambda: partial(g), r"objective\.func\.name"),
    ],
)
def test_the_same_objective_goes_on_and_another_is_refused(same, other, says, tmp_path):
    whole = fit(network(), same(), POINTS, plan=PLAN, progress=False)
    fitted(same(), tmp_path / "t", until=2)
    with pytest.raises(FileError, match=rf"of another training: .*{says}"):
        fitted(other(), tmp_path / "t")
    assert torch.equal(fitted(same(), tmp_path / "t").losses, whole.losses)


def test_other_data_of_the_same_length_are_refused(tmp_path):
    fitted(f, tmp_path / "t", until=2)
    changed = POINTS.clone()
    changed[3, 1] += 1e-3
    with pytest.raises(FileError, match=r"of another training: data\[0\]\.digest: there \w+, here \w+\. Take back"):
        fitted(f, tmp_path / "t", changed)
    assert len(fitted(f, tmp_path / "t", POINTS.clone()).losses) == 4


def made(text: str):
    """A function as another process would make it of this text."""
    module = types.ModuleType("users")
    exec(text, module.__dict__)
    return module.objective


SOURCE = """
K = 2
def helper(x): return x + 1
def objective(network, rng, batch, scale=1.0):
    wanted = {"a", "b", "c"}
    return [helper(K * scale * b) for b in batch if b in {"a", "b"}]
"""


@pytest.mark.parametrize(
    ("old", "new"), [("K = 2", "K = 3"), ("x + 1", "x - 1"), ("scale=1.0", "scale=2.0"), ("helper(K", "helper(-K")]
)
def test_code_defaults_helpers_and_constants_of_a_module_count(old, new):
    was = identity(made(SOURCE), network())[0]
    assert identity(made("\n\n" + SOURCE), network())[0] == was  # lines moved
    assert identity(made(SOURCE.replace(old, new)), network())[0] != was


def test_what_an_objective_holds_may_lead_back_and_to_the_network():
    """The weights that are trained are no part of it; a ring of references ends."""

    def told(k, seed):
        net = network()
        objective = Scaled([k, {"b": (None, {"x", "y"})}])
        objective.net, objective.back = net, objective
        with torch.no_grad():
            next(net.parameters()).add_(seed)
        return identity(objective, net)

    assert told(1, 0) == told(1, 5) and told(1, 0)[1] == []
    assert list(differences(told(1, 0)[0], told(2, 0)[0], "objective")) == ["objective.k[0]: there 1, here 2"]


def test_a_network_that_an_objective_holds_is_told_by_its_weights():
    teacher = network()
    was = identity(Scaled(teacher), network())[0]
    assert identity(Scaled(network().eval()), network())[0] == was
    with torch.no_grad():
        next(teacher.parameters()).add_(1)
    assert identity(Scaled(teacher), network())[0] != was


def test_what_cannot_be_told_is_named(tmp_path):
    def objective(k):
        made = Scaled(k)
        made.lock = threading.Lock()
        return made

    fitted(objective(1.0), tmp_path / "t", until=2)
    with pytest.warns(MotesWarning, match=r"whether objective\.lock is what it was motes cannot tell"):
        fitted(objective(1.0), tmp_path / "t")
    with pytest.raises(FileError, match=r"objective\.k"):
        fitted(objective(3.0), tmp_path / "t")


class Counting(Scaled):
    """An objective that says itself what counts."""

    def __call__(self, network, rng, batch):
        self.calls = getattr(self, "calls", 0) + 1
        return super().__call__(network, rng, batch)


class Said(Counting):
    def settings(self):
        return {"k": self.k}


def test_settings_say_what_counts(tmp_path):
    for kind, refused in ((Counting, True), (Said, False)):
        objective = kind(1.0)
        fitted(objective, tmp_path / kind.__name__, until=2)
        if refused:
            with pytest.raises(FileError, match=r"objective\.calls: there nothing, here"):
                fitted(objective, tmp_path / kind.__name__)
        else:
            fitted(objective, tmp_path / kind.__name__)
            with pytest.raises(FileError, match=r"objective\.settings\.k: there 1\.0, here 3\.0"):
                fitted(kind(3.0), tmp_path / kind.__name__)


def test_what_cannot_be_trained_says_what_to_do():
    with pytest.raises(ShapeError, match=r"data are torch\.float64, the network torch\.float32: .*data\.to\(torch\.fl"):
        fitted(f, None, POINTS.double())
    with pytest.raises(WrongType, match=r"not ndarray: torch\.as_tensor"):
        fitted(f, None, POINTS.numpy())
    with pytest.raises(WrongType, match=r"give an instance of it, Scaled\("):
        fitted(Scaled, None)
    with pytest.raises(MotesError, match="no parameters to train"):
        fit(torch.nn.Identity(), f, POINTS, plan=PLAN, progress=False)
    assert fit(
        network().double(), lambda n, r, b: n(b[0], b[0][:, 0]).sum(1), POINTS.double(), plan=PLAN, progress=False
    )
