"""States are values: nothing that comes later changes them, wherever an interrupt falls."""

import itertools

import pytest
import torch

import motes
from core import toys
from motes.core.history.growing import Growing


def test_a_longer_one_leaves_the_shorter_alone():
    one = Growing([1])
    two, other = one.plus(2), one.plus(3)
    assert list(one) == [1]
    assert list(two) == [1, 2]
    assert list(other) == [1, 3]
    assert list(two.plus(4)) == [1, 2, 4]
    assert two[-1] == 2
    assert two[:1] == [1]
    assert list(reversed(two)) == [2, 1]
    with pytest.raises(IndexError):
        _ = one[1]


def test_a_state_that_was_kept_stays_what_it_was():
    data = toys.data(45)
    kept = list(motes.steps(toys.Walk(data), 16, seed=3))
    for t in (0, 7, 20, 44):  # before and after anchors move and the record grows
        fresh = next(itertools.islice(motes.steps(toys.Walk(data), 16, seed=3), t, None))
        state = kept[t]
        assert state.genealogy.t == t == state.particles.t
        assert len(state.trace.rows) == t + 1
        assert state.trace["ess"].tolist() == fresh.trace["ess"].tolist()
        left, right = state.genealogy.state(), fresh.genealogy.state()
        assert all(torch.equal(left[k], right[k]) for k in right)


def test_two_walks_may_go_on_from_one_state():
    data = toys.data(30)
    walk = motes.steps(toys.Walk(data), 16, seed=3)
    start = next(itertools.islice(walk, 12, None))
    ends = [list(motes.steps(toys.Walk(data), 16, seed=3, start=start))[-1] for _ in range(2)]
    last = list(walk)[-1]
    for end in ends:
        assert torch.equal(end.particles.log_weight, last.particles.log_weight)
        assert torch.equal(end.genealogy.paths(), last.genealogy.paths())
        assert end.trace["ess"].tolist() == last.trace["ess"].tolist()
