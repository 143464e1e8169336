"""The layout of the family tree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motes.report.lineage import lineage


def ancestors(n, generations, seed):
    draw = np.random.default_rng(seed)
    return [(3 * g + 2, draw.integers(0, n, n)) for g in range(generations)]


def crossings(edges):
    """Pairs of edges of one generation whose ends stand in opposite order."""
    found = 0
    for g in np.unique(edges[:, 0]):
        e = edges[edges[:, 0] == g]
        up, down = e[:, 1][:, None] - e[:, 1], e[:, 2][:, None] - e[:, 2]
        found += int(((up * down) < -1e-12).sum())
    return found


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 1000), st.sampled_from([5, 12, 100]))
def test_no_two_lines_cross_and_every_line_goes_back_to_the_start(n, generations, seed, lines):
    tree = lineage(ancestors(n, generations, seed), np.full(n, 1 / n), lines)
    edges = np.concatenate([tree.alive, tree.dead])
    assert crossings(edges) == 0
    for g in range(2, generations + 1):  # whoever is drawn has a parent that is drawn too
        children, parents = edges[edges[:, 0] == g], edges[edges[:, 0] == g - 1]
        assert np.isin(children[:, 1].round(9), parents[:, 2].round(9)).all()
    assert (edges[:, 1:3] >= 0).all() and (edges[:, 1:3] <= 1).all()
    assert tree.drawn <= lines


def test_a_layout_by_slot_would_cross():
    # the broken twin of the test above: heights that are slots instead of ranks below the parent
    (_, parent), *_ = ancestors(20, 1, 0)
    edges = np.stack([np.ones(20), parent / 19, np.arange(20) / 19, np.zeros(20)], axis=1)
    assert crossings(edges) > 0


def test_families_are_those_of_the_roots_and_ranked_by_weight():
    a = ancestors(40, 3, 1)
    weight = np.random.default_rng(2).dirichlet(np.ones(40))
    root = a[0][1][a[1][1]][a[2][1]]
    tree = lineage(a, weight, lines=100)
    assert tree.families == len(np.unique(root))
    mass = np.array([tree.end_weight[tree.end_family == k].sum() for k in range(tree.families)])
    assert mass == pytest.approx(np.sort(np.bincount(root, weights=weight))[::-1][: tree.families])
    assert set(tree.alive[:, 3]) == set(range(tree.families))
    assert not set(tree.alive[tree.alive[:, 0] == 1][:, 2]) & set(tree.dead[tree.dead[:, 0] == 1][:, 2])


def test_many_particles_and_many_resamplings_are_thinned():
    n, generations = 20_000, 200
    a = [(g, np.sort(np.random.default_rng(g).integers(0, n, n))) for g in range(1, generations)]
    tree = lineage(a, np.full(n, 1 / n), lines=100, generations=30)
    assert len(tree.steps) == 31 and tree.steps[-1] == 199
    assert len(tree.alive) + len(tree.dead) <= 2 * 100 * 30
    root = np.arange(n)
    for _, parent in a:
        root = root[parent]
    assert tree.families == len(np.unique(root))
