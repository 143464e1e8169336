"""A Stan model, through BridgeStan."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from motes.errors import MotesError, needing
from motes.kernels import State
from motes.laws.adapters.adapter_start import AdapterStart, around_mode, initial_point
from motes.laws.adapters.outside import EDGE, Outside, Shapes, named, shapes_as_json
from motes.laws.parameters import Values
from motes.rng import Rng

INSTALL = (
    "from_stan needs BridgeStan: pip install 'motes[stan]', and a C++ compiler with make; BridgeStan fetches Stan's "
    "sources when it compiles its first model"
)


def from_stan(
    model: Any,
    *,
    data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    start: Distribution | None = None,
    initial: Tensor | None = None,
    widen: float = 1.5,
) -> Outside:
    """A Stan model over its unconstrained vector, sampled from a start.

    A Stan program is one density: what in it is prior and what is likelihood cannot be told apart. So the law is
    start(z) x [density(z) / start(z)] over Stan's unconstrained vector z, whose evidence is the integral of the
    density, with all its constants (propto=False) and the Jacobians of the constraints. That is the marginal likelihood
    if the program is a normalised prior times a normalised likelihood: a prior that is not written down is flat, which
    is not normalised, and one that is truncated by a constraint needs the truncation in its `~` statement. Where the
    program rejects, the density is zero.

    Args:
        model: a file .stan (which is compiled) or a compiled one, or a `bridgestan.StanModel`.
        data: what `StanModel` takes: a JSON text, a .json file, or a dict; only with a file.
        start: a `torch.distributions` object over the unconstrained vector (dim,); None is a Gaussian around the
            mode, by the curvature there.
        initial: the unconstrained point (dim,) from which the mode is looked for; None is the origin.
        widen: the factor by which the standard deviations of that Gaussian are stretched.

    Raises:
        ImportError: BridgeStan is not installed.
        MotesError: there is nothing to sample, no mode, or the start misses the density.
    """
    if isinstance(model, (str, os.PathLike)):
        with needing(INSTALL):
            import bridgestan
        model = bridgestan.StanModel(os.fspath(model), dict(data) if isinstance(data, Mapping) else data)
    elif data is not None:
        raise MotesError("give data with a file only: a StanModel has its own")
    return Stan(model, start, initial, widen)


class Stan(Outside):
    """What `from_stan` returns."""

    differentiable = True
    _rejected = ""

    def __init__(self, model: Any, start: Distribution | None, initial: Tensor | None, widen: float):
        self._model, self.dim = model, model.param_unc_num()
        if self.dim < 1:
            raise MotesError("the Stan model has no parameters, so there is nothing to sample")
        self._places = _places(model.param_names())
        self._derived = _places(model.param_names(include_tp=True))
        self.shapes: Shapes = {name: shape for name, (shape, _) in self._places.items()}
        if start is None:
            start = around_mode(self._with_gradient, initial_point(self.dim if initial is None else initial), widen)
        self._start = AdapterStart(start, self.dim)
        state = self.evaluate(self.sample(Rng(0).at("probe"), 4), gradient=True)
        if (state["log_likelihood"] == -math.inf).all():
            raise MotesError(
                f"the Stan model rejects all of four draws from the start: {self._rejected or 'its density is zero'}. "
                "Give a start nearer to where the density is"
            )

    def _with_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities (N,) and gradients (N, dim); -inf and 0 where the program rejects."""
        values, slopes = [], []
        for row in z.detach().contiguous().numpy():
            try:
                value, slope = self._model.log_density_gradient(row, propto=False, jacobian=True)
                slopes.append(torch.tensor(slope, dtype=torch.float64))
            except RuntimeError as error:  # what BridgeStan makes of a rejection
                value, self._rejected = -math.inf, str(error)
                slopes.append(torch.zeros(self.dim, dtype=torch.float64))
            values.append(value)
        return torch.tensor(values, dtype=torch.float64), torch.stack(slopes)

    def _without(self, z: Tensor) -> Tensor:
        values = []
        for row in z.detach().contiguous().numpy():
            try:
                values.append(self._model.log_density(row, propto=False, jacobian=True))
            except RuntimeError:
                values.append(-math.inf)
        return torch.tensor(values, dtype=torch.float64)

    def sample(self, rng: Rng, n: int) -> Tensor:
        """(n, dim) draws from the start."""
        return self._start.sample(rng.at("start"), n)

    def parts(self, z: Tensor, gradient: bool) -> State:
        value, slope = self._with_gradient(z) if gradient else (self._without(z), None)
        # which coordinates have a constraint is not known: beyond the edge, what is no number is outside
        far = torch.isnan(value) & (z.abs() >= EDGE).any(1)
        return self._start.under(z, torch.where(far, -math.inf, value), slope)

    def constrain(self, z: Tensor) -> Values:
        """The parameters and transformed parameters by name, at real vectors z (N, dim)."""
        rows = [self._model.param_constrain(row, include_tp=True) for row in z.detach().contiguous().numpy()]
        table = torch.stack([torch.tensor(row, dtype=torch.float64) for row in rows])
        return {
            name: table[:, torch.tensor(index, dtype=torch.int64)].reshape(-1, *shape)
            for name, (shape, index) in self._derived.items()
        }

    def unconstrain(self, values: Values) -> Tensor:
        """The real vectors (N, dim) of the parameters; transformed ones may be there, and are not looked at."""
        given = named(values, self.shapes)
        n = len(next(iter(given.values())))
        table = torch.empty(n, sum(len(index) for _, index in self._places.values()), dtype=torch.float64)
        for name, (_, index) in self._places.items():
            table[:, torch.tensor(index, dtype=torch.int64)] = given[name].reshape(n, -1)
        return torch.stack([torch.tensor(self._model.param_unconstrain(row)) for row in table.numpy()])

    def settings(self) -> dict[str, Any]:
        """What identifies this density, as JSON."""
        return {
            "source": "stan",
            "model": str(self._model.name()),
            "start": self._start.name,
            "parameters": shapes_as_json(self.shapes),
        }


def _places(names: list[str]) -> dict[str, tuple[tuple[int, ...], list[int]]]:
    """Name, shape, and where each element stands (in the order of rows) of what BridgeStan calls x.1.1, x.2.1, ..."""
    found: dict[str, dict[tuple[int, ...], int]] = {}
    for place, full in enumerate(names):
        match = re.fullmatch(r"(.*?)((?:\.\d+)*)", full)
        assert match is not None
        index = tuple(int(i) - 1 for i in match[2].split(".")[1:])
        found.setdefault(match[1], {})[index] = place
    places = {}
    for name, at in found.items():
        shape = tuple(max(i) + 1 for i in zip(*at, strict=True))
        places[name] = (shape, [at[i] for i in sorted(at)])
    return places
