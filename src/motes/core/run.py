"""What a finished (or interrupted) run holds, and what can be asked of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motes.core import files, tree
from motes.core.cite import ENGINE, Reference
from motes.core.errors import FileError, MotesError, ShapeError
from motes.core.exports import export
from motes.core.genealogy import Genealogy
from motes.core.particles import Particles
from motes.core.resampling import find_scheme
from motes.core.trace import Trace
from motes.core.tree import PyTree
from motes.core.variance import StandardError, log_evidence_se, mean_se
from motes.core.weights import normalise
from motes.rng import Rng


class Result(Enum):
    """How a run ended."""

    OK = "OK"
    ALL_WEIGHTS_ZERO = "ALL_WEIGHTS_ZERO"
    NAN_LOG_POTENTIAL = "NAN_LOG_POTENTIAL"
    MAX_STEPS = "MAX_STEPS"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True)
class Estimate:
    """An expectation with its Monte Carlo standard error.

    Attributes:
        value: the weighted mean, shape of f(x) without the particles' axis.
        se: its standard error, same shape; NaN where the run cannot give one.
        reason: why `se` is NaN, empty otherwise.
    """

    value: Tensor
    se: Tensor
    reason: str = ""

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        if self.value.numel() == 1:
            return f"{float(self.value):.5g} ± {float(self.se):.2g}"
        return f"Estimate(value={self.value}, se={self.se})"


@dataclass(frozen=True)
class Run:
    """Weighted particles with everything needed to trust, save, continue and report them."""

    particles: Particles
    genealogy: Genealogy
    trace: Trace
    result: Result
    view: PyTree
    setup: dict[str, Any]
    """JSON: seed, n, resampling, when, model (its name), settings (the model's), domain, quantity, versions, recipe."""
    references: tuple[Reference, ...] = field(default=ENGINE)

    @property
    def n(self) -> int:
        """The number of particles."""
        return self.particles.n

    @property
    def seed(self) -> int | None:
        """The seed; None if random numbers came from elsewhere."""
        return self.setup["seed"]

    @property
    def log_weight(self) -> Tensor:
        """(N,) float64, nats, not normalised."""
        return self.particles.log_weight

    @property
    def weight(self) -> Tensor:
        """(N,) float64, the normalised weights."""
        return normalise(self.particles.log_weight)

    @property
    def log_evidence(self) -> float:
        """The estimate of the log normaliser, nats; `setup["quantity"]` says what it is called."""
        return self.particles.log_evidence

    @property
    def standard_error(self) -> StandardError:
        """The one-run standard error of the log evidence, by which method, or why there is none."""
        return log_evidence_se(self.particles, self.genealogy, find_scheme(self.setup["resampling"]))

    @property
    def log_evidence_se(self) -> float:
        """The one-run standard error of the log evidence, nats; NaN if the run cannot give one."""
        return self.standard_error.value

    @property
    def ess(self) -> float:
        """The effective sample size of the final weights."""
        return self.particles.ess

    @property
    def seconds(self) -> float:
        """Time spent in steps, all sittings together."""
        return float(self.trace["seconds"].sum())

    @property
    def texts(self) -> list[str]:
        """The particles as texts, where they are texts."""
        if isinstance(self.view, list) and all(isinstance(v, str) for v in self.view):
            return self.view
        raise MotesError(f"the particles of a {self.setup['model']} run are no texts; see run.view")

    def mean(self, f: Callable[[Any], Tensor] | str | None = None) -> Estimate:
        """The weighted mean of `f` over the particles, with its standard error.

        Args:
            f: maps `run.view` (named parameters, texts, images) to a tensor (N, ...); or the name of a parameter; or
                nothing where the view is one tensor.

        Raises:
            ShapeError: what `f` returns has not the particles as its first axis.
        """
        if isinstance(f, str):
            if not isinstance(self.view, dict) or f not in self.view:
                known = ", ".join(self.view) if isinstance(self.view, dict) else "none"
                raise MotesError(f"no parameter is called {f!r}; there are: {known}")
            value = self.view[f]
        else:
            value = self.view if f is None else f(self.view)
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != self.n:
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"mean needs a tensor ({self.n}, ...), one row a particle, not {what}")
        value = value.to(torch.float64)
        weight = self.weight
        alive = (weight > 0).view(-1, *[1] * (value.ndim - 1))
        if not torch.isfinite(torch.where(alive, value, 0)).all():
            bad = [i for i in range(self.n) if weight[i] > 0 and not torch.isfinite(value[i]).all()]
            raise MotesError(f"f is not finite for particles {bad[:8]}, which have positive weight")
        value = torch.where(alive, value, 0)
        mean = torch.tensordot(weight, value, dims=1)
        se, reason = mean_se(value, self.particles, self.genealogy, find_scheme(self.setup["resampling"]))
        return Estimate(mean, se, reason)

    def draws(self, k: int, *, seed: int | None = None) -> PyTree:
        """`k` equally weighted draws, as `run.view` shows them, in random order.

        Raises:
            AllWeightsZero: no particle has a positive weight.
        """
        rng = Rng(seed if seed is not None else self.setup["seed"] or 0).at("draws")
        index = find_scheme("systematic")(rng, self.log_weight, n=k)[rng.at("order").permutation(k)]
        if isinstance(self.view, list):
            return [self.view[i] for i in index.tolist()]
        return tree.take(self.view, index)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run to one safetensors file, whole or not at all."""
        p = self.particles
        population = {"x": p.x, "log_weight": p.log_weight, "ancestor": p.ancestor, "root": p.root, "shared": p.shared}
        trees = {
            "particles": population,
            "genealogy": self.genealogy.state(),
            "trace": self.trace.state(),
            "view": None if self.view is p.x else self.view,
        }
        meta = {
            "t": p.t,
            "result": self.result.value,
            "setup": self.setup,
            "references": [r.to_dict() for r in self.references],
            "view_is_x": self.view is p.x,
        }
        return files.write(path, trees, meta)

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write a self-contained HTML report (needs the extra `motes[report]`)."""
        return export("report")(self, path)

    def to_arviz(self, *, resampled: bool = False) -> Any:
        """An ArviZ DataTree with the log-weights in `sample_stats`, or equally weighted with `resampled=True`."""
        return export("arviz")(self, resampled=resampled)

    def __repr__(self) -> str:
        s = self.setup
        return (
            f"Run({s['model']}, n={self.n}, t={self.particles.t}, {self.result.value}, "
            f"{s['quantity']}={self.log_evidence:.4f} ± {self.log_evidence_se:.2g}, ess={self.ess:.1f})"
        )


def load(path: str | os.PathLike[str]) -> Run:
    """Read a run or a checkpoint that `Run.save` or `motes.sample(checkpoint=...)` wrote.

    Raises:
        FileError: the file is truncated, damaged or foreign.
    """
    trees, meta = files.read(path)
    try:
        population = trees["particles"]
        particles = Particles(**population, t=meta["t"])
        return Run(
            particles=particles,
            genealogy=Genealogy.from_state(trees["genealogy"]),
            trace=Trace.from_state(trees["trace"]),
            result=Result(meta["result"]),
            view=particles.x if meta["view_is_x"] else trees["view"],
            setup=meta["setup"],
            references=tuple(Reference(**r) for r in meta["references"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} lacks a part of a run, or has a damaged one: {error}") from error
