"""What a careful reader of a run should know before believing it, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from motes.core.run import Result
from motes.report import numerals
from motes.report.facts import Facts

ENDINGS = {
    Result.MAX_STEPS: "The run was stopped by its limit of steps before it was done: the particles stand for an "
    "earlier law than the one that was asked for.",
    Result.INTERRUPTED: "The run was interrupted before it was done: the particles stand for an earlier law than the "
    "one that was asked for. motes.resume continues it from its file.",
    Result.NAN_LOG_POTENTIAL: "A log-weight became NaN or infinite, and the run stopped. What is shown is the last "
    "good step before that.",
    Result.ALL_WEIGHTS_ZERO: "At the next step no particle had any weight left, and the run stopped. What is shown is "
    "the last good step before that.",
}


@dataclass(frozen=True)
class Caution:
    """One thing to be careful about: `serious` where the numbers cannot be used as they are."""

    title: str
    text: str
    serious: bool = False


def cautions(f: Facts) -> list[Caution]:
    """What to be careful about in this run, the serious things first."""
    weighted = (_error_bar, _weights, _genealogy, _history)
    checks = (_ending, _remarks, *((_chains,) if f.chains else weighted), _moves, _particles)
    found = [c for check in checks for c in check(f)]
    return sorted(found, key=lambda c: not c.serious)


def _ending(f: Facts) -> Iterator[Caution]:
    if f.result is not Result.OK:
        ending = ENDINGS.get(f.result, "It did not end normally.")
        yield Caution(f"The run ended with {f.result.value}", ending, True)


def _remarks(f: Facts) -> Iterator[Caution]:
    for remark in f.remarks:
        yield Caution("The sampler says", sentence(remark), f.chains)


def _chains(f: Facts) -> Iterator[Caution]:
    if f.diagnosis is None:
        text = "Effective sample sizes and R-hat come from ArviZ: pip install 'motes[arviz]'."
        yield Caution("Whether the chains agree was not looked at", text)
    else:
        for advice in f.diagnosis.remarks[len(f.remarks) :]:
            yield Caution("ArviZ says", sentence(advice))


def _error_bar(f: Facts) -> Iterator[Caution]:
    if f.n > 1 and not math.isfinite(f.se):
        reason = f.se_reason or "the run gave no reason"
        advice = "Run it with replicas=8: the spread of independent populations is an error bar nearly always."
        if f.populations:
            advice = "Use more particles in each population, or more populations."
        yield Caution(f"No error bar on the {f.quantity}", f"Why: {sentence(reason)} {advice}")
    elif math.isfinite(f.se) and f.se > 1:
        yield Caution(
            f"The {f.quantity} is only known to ± {numerals.plain(f.se, 2)} nats",
            "With an error above 1 nat, what exp() makes of it is an order of magnitude at best, and its error is "
            "lopsided: the estimate is usually too low and rarely far too high. More particles help.",
        )


def _weights(f: Facts) -> Iterator[Caution]:
    if f.n == 1:
        yield Caution("A single particle", "One particle has no spread: no error bar and no picture of the law.", True)
        return
    if f.ess < 0.1 * f.n or f.ess < 30:
        draws = "one independent draw" if f.ess < 1.5 else f"{numerals.count(round(f.ess))} independent draws"
        few = "Low effective sample size" if f.ess < 0.3 * f.n else "Few particles, effective sample size"
        yield Caution(
            f"{few} {numerals.count(f.ess)} of {numerals.count(f.n)}",
            f"Averages over these particles are about as precise as averages over {draws}. Intervals and tails "
            "need more.",
            f.ess < 5,
        )
    if f.max_weight > 0.3:
        text = f"A single particle holds {numerals.percent(f.max_weight)} of all weight."
        yield Caution("One particle dominates", text, f.max_weight > 0.9)


def _genealogy(f: Facts) -> Iterator[Caution]:
    if f.n < 2 or f.resamplings == 0 or f.roots >= max(min(20, 0.25 * f.n), 0.02 * f.n):
        return
    who = "one ancestor" if f.roots == 1 else f"{f.roots} ancestors"
    often = "one resampling" if f.resamplings == 1 else f"{f.resamplings} resamplings"
    text = (
        f"After {often} all {numerals.count(f.n)} particles descend from {who} of time 0. Whatever a particle has kept "
        "from its early steps is shared by many: averages of such things are less precise than the effective sample "
        "size says."
    )
    yield Caution("Thin genealogy", text, f.roots == 1 and f.shown.listed)


def _history(f: Facts) -> Iterator[Caution]:
    if f.steps == 0:
        yield Caution("Nothing is known about the way", "This run recorded no steps, so only its end can be judged.")
        return
    ess = f.trace.get("ess", np.zeros(0))
    if f.n > 9 and len(ess) > 2 and np.isfinite(ess).any():
        k = int(np.nanargmin(ess))
        if ess[k] < min(5.0, 0.1 * f.n) and f.ess > 2 * ess[k]:
            yield Caution(
                f"The population nearly collapsed at step {f.trace['t'][k]:.0f}",
                f"There the effective sample size fell to {numerals.plain(ess[k], 2)}: everything after it "
                "descends from a handful of particles. Smaller steps or more particles avoid that.",
            )


def _moves(f: Facts) -> Iterator[Caution]:
    rate = f.trace.get("acceptance", np.zeros(0))
    rate = rate[np.isfinite(rate)]
    low = rate < 0.05
    if low.any():
        steps = "every step" if low.all() else f"{low.sum()} of {len(rate)} steps"
        text = f"At {steps} fewer than 5 % of the proposals were accepted, so particles stayed where they were."
        yield Caution("The kernel hardly moved the particles", text)


def _particles(f: Facts) -> Iterator[Caution]:
    if f.distinct:
        share = np.array([d.weight for d in f.distinct])
        effective = 1 / float((share**2).sum())
        if f.n >= 10 and effective < 0.1 * f.ess + 1:
            heaviest = numerals.percent(share[0])
            one = f"{len(f.distinct)} distinct {f.shown.plural}, and one of these holds {heaviest} of the weight"
            much = one if len(f.distinct) > 1 else f"one distinct {f.shown.plural[:-1]}"
            text = f"The {numerals.count(f.n)} particles are {much}. This may be the law itself, or copies made by "
            text += "resampling: the effective sample size cannot tell, a second run with another seed can."
            yield Caution("Few distinct particles", text)
    broken = [s.name for s in f.summaries if not np.isfinite(s.column.values[f.weight > 0]).all()]
    if broken:
        names = ", ".join(broken[:5]) + (" and others" if len(broken) > 5 else "")
        text = f"{names}: some particles with positive weight are NaN or infinite there; summaries leave them out."
        yield Caution("Values that are not finite", text, True)


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
