"""What every kind of view can say of the particles that it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from motes.core import tree
from motes.core.tree import PyTree
from motes.errors import MotesError


@dataclass(frozen=True)
class Column:
    """One number of every row: `values` (N,) float64; `whole` where they are whole numbers. Of texts, the texts."""

    name: str
    values: np.ndarray
    whole: bool


@dataclass(frozen=True)
class Distinct:
    """What is shown one by one, a text or the pixels of a picture: its weight, and how many particles equal it."""

    what: str | np.ndarray
    weight: float
    count: int


class View(ABC):
    """The particles as the user means them, of one kind: what a report, a plot or a data frame shows of a run.

    A kind is a file in `motes/core/views/`, whose class is found by its name; `FeynmanKac.shows` says that name.
    """

    kind: ClassVar[str]
    """Its name."""
    needs: ClassVar[str]
    """What its value must be."""
    plural: ClassVar[str]
    """What messages and headings call the particles."""
    weighted: ClassVar[bool] = True
    """Whether a row is a particle with its weight; rows of chains are equally weighted draws, many of each chain."""
    listed: ClassVar[bool] = False
    """Whether the rows are shown one by one, the heaviest first, rather than by the marginals of their numbers."""
    axes: ClassVar[int] = 1
    """How many axes of the tensors count draws: 1, the rows; 2, chains and their draws."""

    def __init__(self, value: PyTree):
        self.value = value
        if not self.fits():
            raise MotesError(f"a view of kind {self.kind!r} is {self.needs}, not {self._found()}: see FeynmanKac.shows")

    @abstractmethod
    def fits(self) -> bool:
        """Whether the value is of this kind."""

    def _found(self) -> str:
        found = {type(leaf).__name__ + str(tuple(leaf.shape)) for _, leaf in self.leaves()}
        return ", ".join(sorted(found)) or f"a {type(self.value).__name__}"

    def __len__(self) -> int:
        """How many rows there are."""
        return next((len(leaf) for _, leaf in self.leaves()), 0)

    def flat(self, most: int | None = None) -> View:
        """The same with one row a draw; of draws by chain, at most about `most`, evenly spaced."""
        return self

    def leaves(self) -> list[tuple[str, Tensor]]:
        """The tensors by name: a parameter's own name, or `x` where the view is one tensor."""
        return [(short(where), leaf) for where, leaf in tree.leaves(self.value, "") if isinstance(leaf, Tensor)]

    def columns(self, most: int | None = None) -> list[Column]:
        """Every scalar component of a row, `name[i, j]`, the first `most` of them."""
        out: list[Column] = []
        for name, leaf in self.leaves():
            flat = leaf.detach().cpu().reshape(len(leaf), -1) if len(leaf) else leaf.reshape(0, 0)
            shape = tuple(leaf.shape[1:])
            left = flat.shape[1] if most is None else most - len(out)
            for k in range(min(flat.shape[1], left)):
                place = "" if not shape else f"[{', '.join(str(i) for i in np.unravel_index(k, shape))}]"
                whole = not (leaf.is_floating_point() or leaf.is_complex())
                out.append(Column(name + place, flat[:, k].double().numpy(), whole))
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        """The rows as arrays by name, for what reads numpy."""
        return {name: array(leaf) for name, leaf in self.leaves()}

    def size(self) -> int:
        """How many numbers a row has."""
        return sum(leaf[0].numel() for _, leaf in self.leaves() if len(leaf))

    def distinct(self, weight: np.ndarray) -> list[Distinct]:
        """Where rows are `listed`: equal ones merged, the heaviest first, those without weight left out."""
        return []

    @classmethod
    def joined(cls, values: Sequence[PyTree]) -> PyTree:
        """The rows of the views of several populations one after the other; what does not fit together is left out."""
        return tree.joined(values, cls.axes)


def short(where: str) -> str:
    """`['theta']` is theta, the unnamed whole is x, deeper places keep their brackets."""
    if not where:
        return "x"
    if where.startswith("['") and where.endswith("']") and where.count("[") == 1:
        return where[2:-2]
    if where.startswith("['"):
        head, rest = where[2:].split("']", 1)
        return head + rest
    return "x" + where


def array(tensor: Tensor) -> np.ndarray:
    """A tensor for numpy, which does not know bfloat16."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()


def merged(keyed: Sequence[tuple[Any, Any]], weight: np.ndarray) -> list[Distinct]:
    """Rows (key, what is shown) with equal keys put together."""
    total: dict[Any, list] = {}
    for (key, what), w in zip(keyed, weight.tolist(), strict=True):
        entry = total.setdefault(key, [what, 0.0, 0])
        entry[1] += w
        entry[2] += 1
    out = [Distinct(*entry) for entry in total.values() if entry[1] > 0]
    return sorted(out, key=lambda d: -d.weight)
