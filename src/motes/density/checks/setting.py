"""How data come about: what calibration, Geweke's test and predictive checks need to know beside the density."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from motes.core import tree
from motes.errors import MotesError
from motes.laws.density import Density
from motes.laws.parameters import Values
from motes.rng import Rng

Data = Any
"""A tensor, or dicts, tuples and lists of tensors."""

HOW = """define these three beside or instead of `model`:
    def density(data): return motes.Density(lambda p: Normal(p["mean"], 1.0).log_prob(data).sum(), prior)
    def simulate(rng, p): return p["mean"] + rng.at("noise").normal((20,))  # data for one set of parameters
    data = torch.tensor([...])  # what was observed"""


def watched(parts: Sequence[Any], name: str, progress: bool) -> Iterable[Any]:
    """`parts` with a progress bar that says how long is left."""
    return tqdm(parts, desc=name, disable=not progress, leave=False)


@dataclass(frozen=True)
class Setting:
    """A model for any data, and a simulator of data from parameters.

    Attributes:
        density: maps data to the `Density` of the parameters given them; the prior must not depend on the data.
        simulate: (rng, parameters) -> data, for one set of parameters without a first axis; all its random numbers must
            come from `rng`.
        data: what was observed; None where nothing was.
    """

    density: Callable[[Data], Density]
    simulate: Callable[[Rng, Values], Data]
    _: KW_ONLY
    data: Data = None

    def drawn(self, rng: Rng, n: int) -> tuple[Tensor, list[Data]]:
        """`n` parameters from the prior, (n, dim) as real vectors, and data for each.

        Raises:
            MotesError: two calls of the simulator with the same random numbers differ, or data are not finite.
        """
        first = self.first()
        z = first.sample(rng.at("prior"), n)
        return z, [self.data_for(rng, first, z, i) for i in range(n)]

    def first(self) -> Density:
        """The density whose prior all share."""
        if self.data is None:
            raise MotesError("checks that simulate need `data`, at least an example of its shape")
        return self.density(self.data)

    def data_for(self, rng: Rng, density: Density, z: Tensor, i: int) -> Data:
        """Data for point i of z (n, dim), with random numbers of its own."""
        values = tree.map_leaves(lambda v: v[0], density.constrain(z[i : i + 1]))
        data = self.simulate(rng.at(f"data-{i}"), values)
        for where, leaf in tree.leaves(data, "data"):
            if not isinstance(leaf, Tensor) or not bool(torch.isfinite(leaf.double()).all()):
                raise MotesError(
                    f"simulate returned {where} that is no tensor, or not finite, for draw {i} of the prior"
                )
        if i == 0 and not tree.equal(data, self.simulate(rng.at(f"data-{i}"), values)):
            raise MotesError(
                "simulate gives different data for the same random numbers: draw all of them from the `rng` it gets"
            )
        return data
