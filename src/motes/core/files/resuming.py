"""Taking up a run from a file: whose particles are not the model's own is told from a model that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from motes.core import tree
from motes.core.files.schema import shown
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.smc import State
from motes.errors import FileError, MotesError
from motes.rng import Rng
from motes.rng.seed import source

UNFIT = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, ArithmeticError)
"""How a model fails on particles that are not its own."""


@contextmanager
def taking_up(path: str | os.PathLike[str], model: FeynmanKac) -> Iterator[None]:
    """While the model looks at what a file holds: what it cannot use there is an error of the file.

    Raises:
        FileError: the model fails, and not with an error of motes.
    """
    try:
        yield
    except MotesError:
        raise
    except UNFIT as error:
        raise FileError(
            f"{path} does not hold what {type(model).__name__} saves ({type(error).__name__}: {error}); "
            "resume with the model that began the run"
        ) from error


def first_step(
    walk: Iterator[State], path: str | os.PathLike[str], model: FeynmanKac, saved: Particles, seed: int | Rng
) -> Iterator[State]:
    """The walk; where the model fails at its first step, its particles are compared with new ones.

    Raises:
        FileError: the step failed, and the particles are of another kind than those of this model.
    """
    try:
        first = next(walk, None)
    except MotesError:
        raise
    except UNFIT as error:
        if odd := unlike(saved, model.init(source(seed).at("init", step=0), saved.n)):
            raise FileError(f"{path} does not hold what {type(model).__name__} saves: {odd}") from error
        raise
    if first is not None:
        yield first
        yield from walk


def unlike(saved: Particles, new: Particles) -> str:
    """How saved particles differ in kind from new ones, in words; empty if they could be of one model."""
    then, now = dict(tree.leaves(saved.x)), dict(tree.leaves(new.x))
    if then.keys() != now.keys():
        return f"x has the leaves {', '.join(then)}, not {', '.join(now)}"
    for where, leaf in now.items():
        if _kind(then[where], trailing=True) != _kind(leaf, trailing=True):
            return f"{where} is {shown(then[where])}, not {shown(leaf)}"
    then, now = (dict(tree.leaves(p.shared, "shared")) for p in (saved, new))
    for where, leaf in now.items():
        if where not in then:
            return f"{where} is missing"
        if leaf is not None and _kind(then[where]) != _kind(leaf):
            return f"{where} is {shown(then[where])}, not {shown(leaf)}"
    return ""


def _kind(leaf: Any, *, trailing: bool = False) -> Any:
    if isinstance(leaf, Tensor):
        return (leaf.dtype, tuple(leaf.shape[1:])) if trailing else leaf.dtype
    return float if isinstance(leaf, (int, float)) else str if isinstance(leaf, str) else None
