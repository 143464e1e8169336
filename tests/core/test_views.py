"""Views: particles as named numbers, texts, images and draws by chain."""

import numpy as np
import pytest
import torch

import motes
from motes.core.particles import Particles
from motes.core.views import views
from motes.core.views.chains import ChainView
from motes.core.views.images import ImageView, to_pixels
from motes.core.views.table import TableView
from motes.core.views.texts import TextView
from motes.errors import MotesError, UnknownName


def test_a_kind_is_found_by_its_name() -> None:
    assert {"chains", "images", "table", "texts"} <= set(views)
    assert views["texts"] is TextView
    with pytest.raises(UnknownName, match="perhaps you meant 'texts'"):
        views.find("text")


def test_names_of_nested_parameters() -> None:
    x = torch.zeros(5, 2)
    view = TableView({"beta": x, "tau": x[:, 0], "deep": {"a": (x[:, 0], x.long())}})
    names = [c.name for c in view.columns()]
    assert names == ["beta[0]", "beta[1]", "tau", "deep['a'][0]", "deep['a'][1][0]", "deep['a'][1][1]"]
    assert [c.whole for c in view.columns()] == [False] * 4 + [True] * 2
    assert [c.name for c in TableView(torch.zeros(5)).columns()] == ["x"]
    matrix = TableView(torch.zeros(5, 2, 2)).columns()
    assert [c.name for c in matrix] == ["x[0, 0]", "x[0, 1]", "x[1, 0]", "x[1, 1]"]
    assert len(TableView({"a": torch.zeros(5, 1000)}).columns(7)) == 7
    assert (view.size(), len(view)) == (6, 5)


@pytest.mark.parametrize(
    "kind, value, found",
    [
        ("texts", torch.zeros(3), r"a list of strings, not Tensor\(3,\)"),
        ("texts", [1, 2], "not a list"),
        ("images", torch.zeros(3, 5, 8, 8), "one or three channels"),
        ("images", {"x": torch.zeros(3, 1, 8, 8)}, "one or three channels"),
        ("chains", torch.zeros(3), "chains, draws"),
        ("chains", ["a"], "chains, draws"),
    ],
)
def test_a_value_of_another_kind_is_refused(kind, value, found) -> None:
    with pytest.raises(MotesError, match=found):
        views[kind](value)


def test_equal_texts_are_merged_and_weightless_ones_left_out() -> None:
    found = TextView(["a", "b", "a", "c"]).distinct(np.array([0.2, 0.5, 0.3, 0.0]))
    assert [(d.what, d.weight, d.count) for d in found] == [("a", 0.5, 2), ("b", 0.5, 1)]
    assert TableView({"x": torch.zeros(3)}).distinct(np.full(3, 1 / 3)) == []


def test_equal_images_are_merged() -> None:
    x = torch.zeros(4, 1, 2, 2)
    x[1] = 1
    found = ImageView(x).distinct(np.full(4, 0.25))
    assert [(d.count, d.weight) for d in found] == [(3, 0.75), (1, 0.25)]
    assert found[0].what.shape == (2, 2) and found[1].what.min() == 255


def test_pixels_from_both_ranges() -> None:
    unit = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 2, 2)
    assert to_pixels(unit).ravel().tolist() == [0, 128, 255, 255]
    signed = torch.tensor([-1.0, 0.0, 1.0, -3.0]).reshape(1, 1, 2, 2)
    assert to_pixels(signed).ravel().tolist() == [0, 128, 255, 0]
    assert to_pixels(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    assert to_pixels(torch.full((1, 1, 2, 2), torch.nan)).max() == 0


def test_counts_are_shown_as_shares_of_the_largest():
    counts = torch.tensor([[0, 2, 3, 6], [0, 0, 0, 3]]).reshape(2, 1, 2, 2)
    found = ImageView(counts).distinct(np.array([0.6, 0.4]))
    assert [d.what.ravel().tolist() for d in found] == [[0, 85, 128, 255], [0, 0, 0, 128]]


def test_draws_by_chain_have_one_row_each_when_flat() -> None:
    view = ChainView({"a": torch.arange(12).view(3, 4)})
    assert view.shape == (3, 4) and not view.weighted
    assert view.flat().value["a"].tolist() == list(range(12))
    assert view.flat(6).value["a"].tolist() == [0, 2, 4, 6, 8, 10]
    joined = ChainView.joined([torch.zeros(2, 5), torch.ones(2, 3)])
    assert joined.shape == (4, 3)


class Shouts(motes.FeynmanKac):
    """Texts, or what the test says they are."""

    def __init__(self, kind: str):
        self.kind = kind

    def init(self, rng, n):
        return Particles.start(torch.arange(n), torch.zeros(n, dtype=torch.float64))

    def step(self, rng, particles):
        return particles.step(particles.x, torch.zeros(particles.n, dtype=torch.float64))

    def done(self, particles):
        return particles.t > 0

    def shows(self):
        return self.kind

    def view(self, particles):
        return ["a" * (int(i) % 3) for i in particles.x]


def test_a_model_says_what_it_shows(tmp_path) -> None:
    run = motes.sample(Shouts("texts"), 9, seed=0, progress=False)
    assert len(run.shown.distinct(np.full(9, 1 / 9))) == 3
    assert motes.load(run.save(tmp_path / "run")).shown.kind == "texts"
    with pytest.raises(MotesError, match=r"'images' is a tensor \(N, C, H, W\) with one or three channels, not a list"):
        _ = motes.sample(Shouts("images"), 9, seed=0, progress=False).shown
    with pytest.raises(UnknownName, match="no view is called 'poems'"):
        motes.sample(Shouts("poems"), 9, seed=0, progress=False)
