"""Taking up a run from a file, with the model that began it: what it says now is compared with what it said then."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from motes.core import tree
from motes.core.files.schema import shown
from motes.core.model import FeynmanKac
from motes.core.particles import Particles
from motes.core.smc import State
from motes.errors import FileError, MotesError, name_particles
from motes.rng import Rng
from motes.rng.seed import seeded

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
        if odd := unlike(saved, model.init(seeded(seed).at("init", step=0), saved.n)):
            raise FileError(f"{path} does not hold what {type(model).__name__} saves: {odd}") from error
        raise
    if first is not None:
        yield first
        yield from walk


def must_agree(
    name: str, now: Tensor, then: Any, mend: str, *, rows: bool = True, rtol: float = 1e-3, atol: float = 1e-3
) -> None:
    """Compare what a model says now with what it said when the run was saved: the last bits depend on the batch.

    Args:
        name: of what it says: "reward".
        now: a tensor whose first axis is the particles, unless `rows` is false.
        then: the one of the file.
        mend: what to resume with: "the reward that began it".

    Raises:
        FileError: they differ, and for which particles.
    """
    name, which = name.replace("_", "-"), ""
    if isinstance(then, Tensor) and then.shape == now.shape:
        then = then.to(now)
        near = torch.isclose(now, then, rtol=rtol, atol=atol, equal_nan=True)
        if near.all():
            return
        if rows:
            odd = (~near.reshape(len(near), -1).all(1)).nonzero().flatten().tolist()
            which, i = f" of {name_particles(odd)}", odd[0]
            if now.ndim == 1:
                more = f" (that of {len(odd) - 1} more has changed too)" if len(odd) > 1 else ""
                raise FileError(
                    f"the {name} of particle {i} was {float(then[i]):.6g} when the run was saved and is "
                    f"{float(now[i]):.6g} now{more}: resume with {mend}"
                )
    raise FileError(f"the {name}{which} is not what it was when the run was saved: resume with {mend}")


def on_device(x: Mapping[str, Any], names: Container[str], device: str | torch.device) -> dict[str, Any]:
    """Saved leaves with the named ones on a device, at any depth: files hold all of them on the CPU."""
    return {
        name: on_device(v, names, device) if isinstance(v, dict) else v.to(device) if name in names else v
        for name, v in x.items()
    }


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
