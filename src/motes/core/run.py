"""What a finished (or interrupted) run holds, and what can be asked of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from motes.core import replicas, tree
from motes.core.cite import ENGINE, Reference
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.control_variates import control as take_out
from motes.core.estimate.draws import Function, values
from motes.core.estimate.estimate import Estimate
from motes.core.estimate.psis import Smoothed
from motes.core.estimate.psis import smooth as smooth_weights
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.variance import StandardError, log_evidence_se
from motes.core.estimate.weighted_sample import WeightedSample
from motes.core.files import store as files
from motes.core.history.genealogy import Genealogy
from motes.core.lazy_report import export
from motes.core.particles import Particles
from motes.core.remark import Doubted, Remark
from motes.core.resampling import find_scheme
from motes.core.result import Result
from motes.core.trace import Trace
from motes.core.tree import PyTree
from motes.core.views import views
from motes.core.views._view import View
from motes.core.views.chains import ChainView
from motes.core.weights import normalise
from motes.errors import MotesError, plural
from motes.rng import Rng

DIGITLESS = 1e13
"""Nats of log-weights whose 16 digits leave less than a thousandth for their differences."""


@dataclass(frozen=True)
class Run:
    """Weighted particles with everything needed to trust, save, continue and report them."""

    particles: Particles
    genealogy: Genealogy
    trace: Trace
    result: Result
    view: PyTree
    setup: dict[str, Any]
    """JSON: seed, n, resampling, when, model (its name), settings (the model's), quantity, view (of which kind),
    versions, recipe."""
    references: tuple[Reference, ...] = field(default=ENGINE)
    own_error: StandardError | None = None
    """The model's own standard error of the log evidence, where it has one."""
    systematic: Systematic | None = None
    """An error of the log evidence that more particles do not cure, where the model estimates one."""
    coarse: CoarseLevel | None = None
    """Some of the particles by a coarser rule, from which means know such an error, where the model has them."""
    score: Tensor | None = None
    """(N, d) gradients of the target's log-density at the draws, where the model knows them."""
    remarks: tuple[Remark, ...] = ()
    """What the model had to say of how the run went, a sentence each; each knows which estimates it puts in doubt."""
    replicas: tuple[Run, ...] = ()
    """The independent populations of a run with replicas, each a run of its own; empty for a single population.

    The particles, view and trace of such a run are those of all its populations, one after the other."""

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
        """The estimate of the log normaliser, nats; `setup["quantity"]` says what it is called. NaN for chains."""
        return math.nan if not self.shown.weighted and not self.setup["quantity"] else self.particles.log_evidence

    @property
    def standard_error(self) -> StandardError:
        """The standard error of the log evidence, by which method, or why there is none.

        It carries the spread of the particles and, where the model estimates one, its systematic error.
        """
        error, systematic = self.particles_error, self.systematic
        withheld = self.withheld("evidence")
        if systematic is not None and not error.reason:
            value = systematic.added(error.value)
            error = replace(error, value=value, method=f"{error.method}, with the model's own error")
        return replace(error, value=math.nan, reason=withheld) if withheld and not error.reason else error

    @property
    def particles_error(self) -> StandardError:
        """The standard error of the log evidence that the number of particles leaves."""
        if self.replicas:
            return replicas.evidence_error(replicas.estimating(self.replicas))
        if self.own_error is not None:
            return self.own_error
        return log_evidence_se(self.particles, self.genealogy)

    @property
    def doubts(self) -> frozenset[Doubted]:
        """The estimates that some remark puts in doubt: "evidence", "means", both or none."""
        return frozenset(d for remark in self.remarks for d in remark.doubts)

    def withheld(self, quantity: Doubted) -> str:
        """Why an estimate has no error bar according to the remarks, or to its size; empty if nothing objects."""
        if self.shown.weighted and DIGITLESS < abs(self.particles.log_evidence) < math.inf:
            return (
                f"log weights of about {self.particles.log_evidence:.1g} nats have no digits left for what differs "
                "between particles: where a likelihood forbids it must return -inf, and not a large number"
            )
        return next((str(r) for r in self.remarks if r.withholds and quantity in r.doubts), "")

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The ends of the central interval of that level for the log evidence, nats; NaN where it has no error bar."""
        reach = self.standard_error.reach(level)
        return self.log_evidence - reach, self.log_evidence + reach

    @property
    def log_evidence_se(self) -> float:
        """The standard error of the log evidence, nats; NaN if the run cannot give one."""
        return self.standard_error.value

    @property
    def ess(self) -> float:
        """The effective sample size of the final weights."""
        return self.particles.ess

    @property
    def families(self) -> float:
        """The effective number of families that carry the final weights.

        A family is what descends from one particle at the start, or from one 10 to 20 resamplings back. Copies count
        in the effective sample size and not here: where families are few, the particles are few texts, few places.
        """
        if self.replicas:
            share = torch.stack([part.weight.new_tensor(part.log_evidence) for part in self.replicas]).softmax(0)
            return float(1 / sum(float(s) ** 2 / part.families for s, part in zip(share, self.replicas, strict=True)))
        return self.genealogy.families(self.particles.log_weight)

    @property
    def seconds(self) -> float:
        """Time spent in steps, all sittings together."""
        return float(self.trace["seconds"].sum())

    @property
    def shown(self) -> View:
        """The view with what its kind knows of it: its columns, its distinct rows, whether rows have weights."""
        return views[self.setup["view"]](self.view)

    @property
    def flat(self) -> PyTree:
        """The view with one first axis: the particles, or all draws of all chains, chain by chain."""
        return self.shown.flat().value

    @property
    def texts(self) -> list[str]:
        """The particles as texts, where they are texts."""
        if isinstance(self.view, list) and all(isinstance(v, str) for v in self.view):
            return self.view
        raise MotesError(f"the particles of a {self.setup['model']} run are no texts; see run.view")

    @overload
    def mean(self, f: None = None, *, control: bool = False, smooth: bool = False) -> Any: ...
    @overload
    def mean(  # pyright: ignore[reportOverlappingOverload]  # a name is a sequence of letters too
        self, f: Function, *, control: bool = False, smooth: bool = False
    ) -> Estimate[Tensor]: ...
    @overload
    def mean(self, f: Sequence[Function], *, control: bool = False, smooth: bool = False) -> list[Estimate[Tensor]]: ...
    @overload
    def mean(
        self, f: Mapping[str, Function], *, control: bool = False, smooth: bool = False
    ) -> dict[str, Estimate[Tensor]]: ...
    def mean(self, f: Any = None, *, control: bool = False, smooth: bool = False) -> Any:
        """The weighted mean of `f` over the particles, or its mean over all draws of all chains, with standard error.

        The error carries the spread of the particles and, where the model knows it, what a coarser rule differs by.
        For chains the error is from the spread of the means of whole chains, where there are 16 or more, else of
        batches (`core/estimate/batch_means.py`). It is known to 1 / sqrt(2 k), k the number of means: a fifth with 16.
        The mcse of `diagnose` estimates the same number in another way, and differs by chance.

        Args:
            f: maps `run.flat` (named parameters, texts, images) to a tensor (N, ...); or the name of a parameter or of
                one number in it, as "theta", "theta[2]" or "theta[0, 1]" (one tensor without a name is called "x"); or
                nothing where the view is one tensor. A list or a dict of them gives a list or a dict of estimates.
                Nothing where parameters have names gives a dict of the means of all.
            control: take out what the score of the target explains (`core/estimate/control_variates.py`), which makes
                the standard error smaller, often by much for means of parameters.
            smooth: weigh with Pareto-smoothed weights, see `psis`; without standard error where these are unreliable.

        Raises:
            ShapeError: what `f` returns has not the particles as its first axis.
            UnknownName: no parameter is called so.
            MotesError: `control` without a score, or `smooth` without weights.
        """
        if f is None and isinstance(self.view, dict) and all(isinstance(v, Tensor) for v in self.view.values()):
            f = {name: name for name in self.view}
        one = not isinstance(f, (list, tuple, Mapping))
        named: dict[Any, Function] = {"": f} if one else dict(f if isinstance(f, Mapping) else enumerate(f))
        values = fine = [self.values(g) for g in named.values()]
        particles, doubt = self.particles, ""
        if smooth:
            smoothed = self.psis()
            particles = replace(particles, log_weight=smoothed.log_weight)
            doubt = "" if smoothed.reliable else smoothed.advice
        if control and values:
            even = torch.full((len(values[0]),), 1 / len(values[0]), dtype=torch.float64)
            values = take_out(self, values, normalise(particles.log_weight) if self.shown.weighted else even)
        estimates = [self._estimate(v, particles, doubt, g) for v, g in zip(values, fine, strict=True)]
        if self.coarse is not None:
            asked = zip(estimates, named.values(), fine, strict=True)
            estimates = [self.coarse.added(e, g, v, self.log_weight) for e, g, v in asked]
        found = dict(zip(named, estimates, strict=True))
        return found[""] if one else found if isinstance(f, Mapping) else list(found.values())

    def particles_mean(self, value: Tensor) -> Estimate[Tensor]:
        """The weighted mean of numbers (N, ...) of the particles, with the error that their number leaves."""
        return self._estimate(value, self.particles, "", value)

    @property
    def weighted_sample(self) -> WeightedSample:
        """The draws of one population as a weighted sample: their weights, with the families or chains they come in.

        Raises:
            MotesError: the run has several populations.
        """
        run = self.alone("a weighted sample")
        return run._sample(run.particles, run.withheld("means"), len(run.shown.flat()))

    def _sample(self, particles: Particles, doubt: str, rows: int) -> WeightedSample:
        if not self.shown.weighted:
            return WeightedSample.of_chains(self.n, rows // self.n, doubt)
        doubt = doubt or ("" if self.own_error is None else self.own_error.means)
        return WeightedSample(particles.log_weight, genealogy=self.genealogy, doubt=doubt)

    def _estimate(self, value: Tensor, particles: Particles, doubt: str, plain: Tensor) -> Estimate[Tensor]:
        """The mean of `value`, which is `plain` or that without what a control variate explains."""
        doubt = doubt or self.withheld("means")
        if len(parts := replicas.estimating(self.replicas)) > 1:
            even = torch.full((len(value),), 1 / len(value), dtype=torch.float64)
            found = replicas.mean(parts, value, normalise(particles.log_weight) if self.shown.weighted else even)
            return found.doubted(doubt)
        return self._sample(particles, doubt, len(value)).mean(value, plain)

    def alone(self, who: str) -> Run:
        """The run itself, as the one population that `who` needs.

        Raises:
            MotesError: it has several.
        """
        if not self.replicas:
            return self
        raise MotesError(
            f"{who} looks into one population, and this run has {len(self.replicas)}: give it one of run.replicas"
        )

    def psis(self) -> Smoothed:
        """The final weights with their largest Pareto-smoothed, and k-hat with advice (needs `motes[arviz]`).

        It speaks of the last reweighting only: what a run lost earlier, in steps that were too large, the effective
        number of families shows (`run.standard_error`).

        Raises:
            MotesError: the draws have no weights.
        """
        if not self.shown.weighted:
            raise MotesError("chains have no weights to smooth; k-hat speaks of weighted draws only")
        return smooth_weights(self.log_weight)

    def values(self, f: Function = None) -> Tensor:
        """What `mean` takes the mean of: (N, ...) float64, zero where the weight is."""
        view = self.shown.flat()
        alive = self.weight > 0 if self.shown.weighted else torch.ones(len(view), dtype=torch.bool)
        return values(view.value, f, alive)

    def draws(self, k: int, *, seed: int | None = None) -> PyTree:
        """`k` equally weighted draws, as `run.view` shows them, in random order.

        Raises:
            AllWeightsZero: no particle has a positive weight.
            MotesError: `k` is no whole number of at least 0.
        """
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 0:
            raise MotesError(f"k, the number of draws, must be a whole number of at least 0, not {k!r}")
        rng = Rng(seed if seed is not None else self.setup["seed"] or 0).at("draws")
        view = self.flat
        even = torch.zeros(len(self.shown.flat()), dtype=torch.float64)
        log_weight = self.log_weight if self.shown.weighted else even
        index = find_scheme("systematic")(rng, log_weight, n=k)[rng.at("order").permutation(k)]
        if isinstance(view, list):
            return [view[i] for i in index.tolist()]
        return tree.take(view, index)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the run to one safetensors file, whole or not at all."""
        return files.write(path, *self.contents())

    def contents(self) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """What a file of this run holds: trees, and JSON."""
        p = self.particles
        if self.replicas:
            parts = [part.contents() for part in self.replicas]
            meta = {"result": self.result.value, "setup": self.setup, "replicas": [m for _, m in parts]}
            return {"replicas": [t for t, _ in parts]}, meta
        population = {"x": p.x, "log_weight": p.log_weight, "ancestor": p.ancestor, "root": p.root, "shared": p.shared}
        trees = {
            "particles": population,
            "genealogy": self.genealogy.state(),
            "trace": self.trace.state(),
            "view": None if self.view is p.x else self.view,
            "score": self.score,
            "coarse": None if self.coarse is None else self.coarse.state(),
        }
        meta = {
            "t": p.t,
            "result": self.result.value,
            "setup": self.setup,
            "references": [r.to_dict() for r in self.references],
            "view_is_x": self.view is p.x,
            "remarks": [r.to_json() for r in self.remarks],
            "own_error": None if self.own_error is None else asdict(self.own_error),
            "systematic": None if self.systematic is None else asdict(self.systematic),
        }
        return trees, meta

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write a self-contained HTML report to a name in .html (needs the extra `motes[report]`)."""
        return export("report")(self, path)

    def diagnose(self) -> Any:
        """Effective sample sizes and R-hat of a run of chains, and what is wrong with them (needs `motes[arviz]`).

        Its Monte Carlo standard errors (mcse) are ArviZ's, from the autocorrelations within chains; those of `mean` are
        from the spread of the means of chains or batches. Both estimate the same number and differ by chance, by a
        quarter either way; a mcse that is much smaller says that chains are in different places, and `mean` is right.
        """
        return export("diagnose")(self)

    def to_arviz(self, *, resampled: bool = False) -> Any:
        """An ArviZ DataTree with the log-weights in `sample_stats`, or equally weighted with `resampled=True`."""
        return export("arviz")(self, resampled=resampled)

    def to_dataframe(self, *, resampled: bool = False) -> Any:
        """A pandas DataFrame: a row a draw, a column a number (`x[0]`), with `weight` and `log_weight` or chains."""
        return export("dataframe")(self, resampled=resampled)

    def __repr__(self) -> str:
        s = self.setup
        if isinstance(self.shown, ChainView):
            chains, draws = self.shown.shape
            return f"Run({s['model']}, {plural(chains, 'chain')} of {plural(draws, 'draw')}, {self.result.value})"
        se = self.log_evidence_se
        error = "(no error bar)" if math.isnan(se) else f"± {se:.2g}"
        size = f"n={self.n}" if not self.replicas else f"{len(self.replicas)} populations of n={s['n']}"
        return (
            f"Run({s['model']}, {size}, t={self.particles.t}, {self.result.value}, "
            f"{s['quantity']}={self.log_evidence:.4f} {error}, ess={self.ess:.1f}, families={self.families:.1f})"
        )

    def __str__(self) -> str:
        """As `repr`, and why there is no error bar in a line below."""
        error = self.standard_error
        silent = not self.shown.weighted or not (math.isnan(error.value) and error.reason)
        return repr(self) if silent else f"{self!r}\nno error bar: {error.reason}"
