"""Several populations of one model as one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from motes.core import replicas
from motes.core.estimate import coarse_level
from motes.core.estimate.systematic import Systematic
from motes.core.history.genealogy import Genealogy
from motes.core.particles import Particles
from motes.core.remark import ALL, EVIDENCE, Remark
from motes.core.result import Result
from motes.core.run import Run
from motes.core.trace import Trace
from motes.rng import Rng


def joined(runs: Sequence[Run], setup: dict[str, Any], result: Result, *, final: bool = True) -> Run:
    """The run that several populations are together: all their particles, with the weights that they have.

    The log-mean-exp of these is the log of the mean of the populations' evidences, and means weigh each population by
    its evidence. As long as some populations have ended, those that have not are left out of the particles, of the view
    and of all estimates; they are in `replicas` all the same.

    Args:
        runs: the populations that have begun.
        setup: what the run is told by, with their seed and n and the number of "replicas".
        result: how the run ended.
        final: whether to look for disagreement, which a checkpoint on the way need not.
    """
    parts = replicas.estimating(runs)
    first, total = parts[0], sum(run.n for run in parts)
    shift = [0.0 if run.n * len(parts) == total else math.log(total / (run.n * len(parts))) for run in parts]
    places = [0, *torch.tensor([run.n for run in parts]).cumsum(0).tolist()]
    scores = [run.score for run in parts if run.score is not None]
    particles = Particles(
        x={},
        log_weight=torch.cat([run.log_weight + s for run, s in zip(parts, shift, strict=True)]),
        ancestor=torch.cat([run.particles.ancestor + a for run, a in zip(parts, places, strict=False)]),
        root=torch.cat([run.particles.root + a for run, a in zip(parts, places, strict=False)]),
        t=max(run.particles.t for run in parts),
    )
    run = Run(
        particles=particles,
        genealogy=first.genealogy if len(parts) == 1 else Genealogy.start(total),
        trace=Trace({**row, "replica": float(j)} for j, run in enumerate(runs) for row in run.trace.rows),
        result=result,
        view=type(first.shown).joined([run.view for run in parts]),
        setup=setup,
        references=first.references,
        own_error=first.own_error if len(parts) == 1 else None,
        score=torch.cat(scores) if len(scores) == len(parts) else None,
        remarks=replicas.remarks(parts) if final else (),
        replicas=tuple(runs),
        systematic=_systematic(parts),
        coarse=coarse_level.joined([run.coarse for run in parts], places, shift),
    )
    return told_of_systematic(run) if final else run


def told_of_systematic(run: Run) -> Run:
    """The run with a remark where its systematic error is surely more than that of its particles, or unknown."""
    found, error = run.systematic, run.particles_error
    if found is None or error.reason:
        return run
    unknown = math.isnan(found.value)
    if not (unknown or found.exceeds(error.value)):
        return run
    same = [remark for remark in run.remarks if found.text in remark]
    rest = [remark for remark in run.remarks if found.text not in remark]
    doubts = ALL if any("means" in remark.doubts for remark in same) else EVIDENCE
    return replace(run, remarks=(*rest, Remark(found.text, doubts, withholds=unknown)))


def _systematic(parts: Sequence[Run]) -> Systematic | None:
    """The systematic error that all populations have, from what each has estimated."""
    found = [run.systematic for run in parts if run.systematic is not None]
    if len(found) < len(parts):
        return None
    value, sure = (sum(getattr(s, name) for s in found) / len(found) for name in ("value", "sure"))
    return Systematic(value, sure, found[0].text)


def alone(setup: dict[str, Any], j: int) -> dict[str, Any]:
    """The setup of population j, as if it had been run alone."""
    seed = setup["seed"]
    return {k: v for k, v in setup.items() if k != "replicas"} | {
        "seed": None if seed is None else Rng(seed).replica(j).seed
    }
