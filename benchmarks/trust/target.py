"""What stands on the shelf: a target with its truth, and the runs that try to find it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import motes
from motes.core import FeynmanKac, Run, State

Function = Callable[[Any], Any] | str | None


@dataclass(frozen=True)
class Truth:
    """What the estimates of a target should be.

    Attributes:
        log_evidence: nats; infinite where the posterior is improper, NaN where there is none to know.
        means: expectations, under the names of the target's functions.
        errors: standard errors of those of them that are not exact, under their names; "evidence" for the first.
    """

    log_evidence: float = math.nan
    means: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)


def traced(run: Run) -> float:
    """The evaluations that the trace of a run adds up, in points; NaN where it says nothing of them."""
    found = [v for name in ("evaluations", "pilot_evaluations") if name in run.trace for v in run.trace[name]]
    return run.n * sum(v for v in found if v == v) if found else math.nan


@dataclass(frozen=True)
class Job:
    """One run: `motes.sample(model, n, seed=seed, **options)`, and what it cost.

    Attributes:
        evaluations: how many points the run evaluated, asked when it has ended; by default what its trace says.
    """

    model: FeynmanKac
    n: int
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Callable[[Run], float] = traced

    def run(self, seed: int, callback: Callable[[State], Any] | None = None) -> Run:
        return motes.sample(self.model, self.n, seed=seed, progress=False, callback=callback, **self.options)


Sampler = Callable[[int, int], Job]
"""From the number of particles and the seed to a job. What a pilot finds must depend on the seed too."""


def model(make: Callable[[], FeynmanKac], **options: Any) -> Sampler:
    """A sampler that runs the model that `make` makes, with options of `motes.sample`."""
    return lambda n, seed: Job(make(), n, options)


@dataclass(frozen=True)
class Target:
    """A law with known answers, and the samplers that it is tried with.

    Attributes:
        name: in commands and file names: lower-case words joined by hyphens.
        title: in the table.
        truth: computes what is known; takes seconds at most.
        functions: what `run.mean` takes, under the names of `truth().means`.
        samplers: by the names of the table.
        sizes: numbers of particles.
        easy: whether every sampler should print a bar in at least 90 % of runs and a remark in at most 5 %. Decided
            before the first run.
        word: what the error or a remark of every run must contain, where the right answer is a refusal.
        modes: for separated modes, a 0/1 function for each mode; some particle must have met each for a run to know of
            it.
    """

    name: str
    title: str
    truth: Callable[[], Truth]
    functions: Mapping[str, Function]
    samplers: Mapping[str, Sampler]
    domain: str = "density"
    sizes: tuple[int, ...] = (256, 1024)
    easy: bool = False
    word: str = ""
    modes: Mapping[str, Function] = field(default_factory=dict)

    def model(self, sampler: str, n: int, seed: int = 0) -> Job:
        """The job of a sampler on this target.

        Raises:
            KeyError: there is no sampler of that name.
        """
        if sampler not in self.samplers:
            raise KeyError(f"{self.name} has no sampler {sampler!r}; there are: {', '.join(self.samplers)}")
        return self.samplers[sampler](n, seed)
