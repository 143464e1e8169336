"""Trees of per-particle state: dicts, tuples and lists whose leaves are tensors or `Leaf`s.

One function gathers all of it, `take`, so nothing that belongs to a particle can be left behind when the population is
resampled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from motes.errors import ShapeError, plural

PyTree = Any


class Leaf(ABC):
    """Per-particle state that is no tensor (a key-value cache, the states of a parser).

    Files do not hold it: `FeynmanKac.restore` makes it anew from the tensors beside it.
    """

    @abstractmethod
    def take(self, index: Tensor) -> Leaf:
        """The leaf of the particles `index` (M,) int64, in that order."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of particles."""


class Missing(Leaf):
    """Stands where a file had a leaf that is no tensor, until `FeynmanKac.restore` replaces it."""

    def __init__(self, n: int):
        self.n = n

    def take(self, index: Tensor) -> Missing:
        return Missing(len(index))

    def __len__(self) -> int:
        return self.n


def map_leaves(f: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """The same tree with `f` applied to every leaf."""
    if isinstance(tree, dict):
        return {k: map_leaves(f, v) for k, v in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_leaves(f, v) for v in tree)
    if isinstance(tree, list):
        return [map_leaves(f, v) for v in tree]
    return f(tree)


def leaves(tree: PyTree, where: str = "x") -> Iterator[tuple[str, Any]]:
    """Every leaf with the name of its place, like `x['theta']`."""
    if isinstance(tree, dict):
        for k, v in tree.items():
            yield from leaves(v, f"{where}[{k!r}]")
    elif isinstance(tree, (tuple, list)):
        for k, v in enumerate(tree):
            yield from leaves(v, f"{where}[{k}]")
    else:
        yield where, tree


def take(tree: PyTree, index: Tensor) -> PyTree:
    """Gather the particles `index` (M,) int64 of every leaf."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Leaf):
            return leaf.take(index)
        if not isinstance(leaf, Tensor):
            raise ShapeError(f"a {type(leaf).__name__} has no row for each particle, so none can be taken from it")
        return leaf.index_select(0, index.to(leaf.device))

    return map_leaves(one, tree)


def joined(trees: Sequence[PyTree], axes: int = 1) -> PyTree:
    """The rows of several trees one after the other; what does not fit together is left out.

    Args:
        trees: of one shape, with leaves that are tensors or, in lists, texts.
        axes: how many first axes may be of different lengths: with 2 each second one is cut to the shortest, at its
            beginning (chains of different lengths).
    """
    first = trees[0]
    if isinstance(first, dict):
        parts = {k: joined([t[k] for t in trees], axes) for k in first if all(k in t for t in trees)}
        return {k: v for k, v in parts.items() if v is not None}
    if isinstance(first, list) and all(isinstance(v, str) for v in first):
        return [v for t in trees for v in t]
    if isinstance(first, (tuple, list)):
        parts = [joined(part, axes) for part in zip(*trees, strict=False)]
        return type(first)(v for v in parts if v is not None)
    if not isinstance(first, Tensor):
        return None
    if axes == 2:
        least = min(t.shape[1] for t in trees)
        trees = [t[:, t.shape[1] - least :] for t in trees]
    return torch.cat(list(trees)) if all(t.shape[1:] == trees[0].shape[1:] for t in trees) else None


def check(tree: PyTree, n: int) -> None:
    """Every leaf belongs to `n` particles, or a ShapeError that names the leaf."""
    for where, leaf in leaves(tree):
        if isinstance(leaf, Leaf):
            if len(leaf) != n:
                raise ShapeError(f"{where} holds {plural(len(leaf), 'particle')}, and log-weights are {n}")
        elif not isinstance(leaf, Tensor):
            raise ShapeError(
                f"{where} is a {type(leaf).__name__}: per-particle state must be tensors (N, ...) or core.tree.Leaf; "
                "put what belongs to the whole population into `shared`"
            )
        elif leaf.ndim == 0 or leaf.shape[0] != n:
            raise ShapeError(f"{where} has shape {tuple(leaf.shape)}, but its first axis must be the {n} particles")


def equal(a: PyTree, b: PyTree) -> bool:
    """Whether two trees hold the same bits; leaves that are no tensors are passed over."""
    left, right = dict(leaves(a)), dict(leaves(b))
    if left.keys() != right.keys():
        return False
    for where, leaf in left.items():
        other = right[where]
        if isinstance(leaf, Tensor):
            same = isinstance(other, Tensor) and leaf.dtype == other.dtype and leaf.shape == other.shape
            if not same or not torch.equal(torch.nan_to_num(leaf), torch.nan_to_num(other)):
                return False
        elif not isinstance(leaf, Leaf) and leaf != other:
            return False
    return True
