"""Who descends from whom, laid out so that no two lines cross."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lineage:
    """The family tree of a population over its resamplings, thinned to what can be drawn.

    Attributes:
        steps: (G + 1,) the step at which each generation begins; the first is 0.
        alive: edges of lines that reach the last generation, arrays (E, 4): generation of the child, height of the
            parent, height of the child, family (its rank by final weight, 0 the heaviest).
        dead: the same for lines that die out.
        end: (M,) heights of the final particles that are drawn, `end_family` and `end_weight` beside it.
        families: number of time-0 ancestors with descendants.
        drawn: how many of the final particles are drawn.
    """

    steps: np.ndarray
    alive: np.ndarray
    dead: np.ndarray
    end: np.ndarray
    end_family: np.ndarray
    end_weight: np.ndarray
    families: int
    drawn: int


def lineage(
    ancestors: list[tuple[int, np.ndarray]], weight: np.ndarray, lines: int = 240, generations: int = 60
) -> Lineage:
    """Lay out the tree: heights run from 0 to 1, children stand in the order of their parents.

    Args:
        ancestors: per resampling its step and the parents (N,) of all slots.
        weight: (N,) final normalised weights.
        lines: how many lines at most, alive and dead each, reach a generation.
        generations: resamplings drawn; with more, neighbours are composed into one.
    """
    ancestors = _compose(ancestors, generations)
    n = len(weight)
    heights = [np.arange(n, dtype=float)]
    for _, parent in ancestors:  # rank by (height of the parent, slot): subtrees stay together
        order = np.argsort(heights[-1][parent], kind="stable")
        height = np.empty(n)
        height[order] = np.arange(n)
        heights.append(height)
    root = np.arange(n)
    for _, parent in ancestors:
        root = root[parent]
    mass = np.bincount(root, weights=weight, minlength=n)
    alive_roots = np.unique(root)
    rank = np.full(n, -1)
    rank[alive_roots[np.argsort(-mass[alive_roots], kind="stable")]] = np.arange(len(alive_roots))

    drawn = [(last := _spread(np.arange(n), heights[-1], lines), np.zeros(0, dtype=np.int64))]
    survives = np.ones(n, dtype=bool)
    for g in range(len(ancestors), 0, -1):  # backwards: which slots of each generation are drawn, alive and dead
        parent = ancestors[g - 1][1]
        live, dead = drawn[0]
        survives_before = np.zeros(n, dtype=bool)
        survives_before[parent[survives]] = True
        live = np.unique(parent[live])
        dead = np.setdiff1d(parent[dead], live)
        childless = np.setdiff1d(np.flatnonzero(~survives_before), dead, assume_unique=True)
        dead = np.concatenate([dead, _spread(childless, heights[g - 1], max(lines - len(dead), 0))])
        drawn.insert(0, (live, dead))
        survives = survives_before
    family = rank  # of every slot of the parents' generation
    alive_edges, dead_edges = [], []
    for g, (_, parent) in enumerate(ancestors, start=1):
        for children, edges in zip(drawn[g], (alive_edges, dead_edges), strict=True):
            up = parent[children]
            edges.append(np.stack([np.full(len(up), g), heights[g - 1][up], heights[g][children], family[up]], axis=1))
        family = family[parent]
    scale = max(n - 1, 1)
    alive, dying = _join(alive_edges), _join(dead_edges)
    for edges in (alive, dying):
        edges[:, 1:3] /= scale
    return Lineage(
        steps=np.array([0, *(step for step, _ in ancestors)]),
        alive=alive,
        dead=dying,
        end=heights[-1][last] / scale,
        end_family=rank[root[last]],
        end_weight=weight[last],
        families=len(alive_roots),
        drawn=len(last),
    )


def _compose(ancestors: list[tuple[int, np.ndarray]], most: int) -> list[tuple[int, np.ndarray]]:
    if len(ancestors) <= most:
        return ancestors
    out = []
    for part in np.array_split(np.arange(len(ancestors)), most):
        parent = ancestors[part[0]][1]
        for k in part[1:]:
            parent = parent[ancestors[k][1]]
        out.append((ancestors[part[-1]][0], parent))
    return out


def _spread(slots: np.ndarray, height: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `slots`, evenly spaced by height."""
    if len(slots) <= most:
        return slots
    order = slots[np.argsort(height[slots], kind="stable")]
    return order[np.linspace(0, len(order) - 1, most).round().astype(int)] if most else order[:0]


def _join(edges: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(edges) if edges else np.zeros((0, 4))
