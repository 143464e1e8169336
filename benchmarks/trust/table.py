"""The table: what all rows come to, by sampler and by target."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from benchmarks.trust import record
from benchmarks.trust.judge import Coverage, Verdict, judge
from benchmarks.trust.peers import PEERS
from benchmarks.trust.target import Target, Truth

HEAD = """# Trust

Does any run lie? Every sampler, at its documented defaults, on targets with known answers; `python -m
benchmarks.trust` runs the rows and writes this page, `benchmarks/trust/` says how each truth was found. A *silent
miss* is a run whose log evidence, or whose mean of a listed function, lies outside of the interval that it states
at the level of 4 normal deviations (6e-5; Student's t where the bar rests on few families or populations), or that
states an interval where the answer is infinite, while no remark of the run doubts that quantity.

Columns: *bar*, the share of runs that print an error bar for log Z and for means; *covers*, the share of 95 %
intervals, of those that are printed and that no remark doubts, that hold the truth, for log Z with its exact
binomial interval at 99.9 %, for means over all listed functions, with the lowest of them; *stated/true*, root mean
square of the stated errors over that of the true ones; *remarks*, the share of runs with any; *raised*, runs that
ended in an error or were stopped. Evaluations (points; a gradient counts as one) and seconds of CPU are medians of
a run. Bold: a silent miss, or a binomial interval outside of [.90, .99].
"""


OTHERS = """Judged by the errors and the warnings that they give themselves, at their defaults, which
`benchmarks/trust/peers/` names, on the same priors and likelihoods, which they call back in torch: evaluations compare,
seconds do not. N is the number of their live points, particles or chains."""


def write(targets: Mapping[str, Target], folder: Path) -> str:
    """The page, from the rows that are in the folder."""
    verdicts: dict[tuple[str, str, int], Verdict] = {}
    truths: dict[str, Truth] = {}
    sources: set[str] = set()
    for file in sorted(folder.glob("*.json")):
        row = record.read(file)
        if row is None or not row["runs"] or row["target"] not in targets:
            continue
        target = targets[row["target"]]
        truth = truths[target.name] = truths.get(target.name) or target.truth()
        verdicts[row["target"], row["sampler"], row["n"]] = judge(row, target, truth)
        sources |= {r["source"] for r in row["runs"]}
    stamp = f"{date.today()}, motes {version('motes')} at {', '.join(sorted(sources))}, torch {version('torch')}."
    ours = {k: v for k, v in verdicts.items() if k[1] not in PEERS}
    parts = [HEAD, stamp, "## By sampler\n\n" + _by_sampler(targets, ours), _replies(targets, ours)]
    if theirs := {k: v for k, v in verdicts.items() if k[1] in PEERS}:
        parts.append(f"## Other packages\n\n{OTHERS}\n\n" + _by_sampler(targets, theirs))
    for target in targets.values():
        mine = {k[1:]: v for k, v in verdicts.items() if k[0] == target.name}
        if mine:
            parts.append(_section(target, truths[target.name], mine))
    return "\n\n".join(p.strip() for p in parts if p) + "\n"


def _by_sampler(targets: Mapping[str, Target], verdicts: Mapping[tuple[str, str, int], Verdict]) -> str:
    head = ["", "rows", "runs", "silent misses", "of these a mode not met", "log Z covers", "means cover"]
    head += ["rows outside", "easy: bar", "easy: remark"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    groups: dict[str, list[tuple[Target, Verdict]]] = defaultdict(list)
    for (name, sampler, _), verdict in verdicts.items():
        groups[sampler].append((targets[name], verdict))
        groups["all"].append((targets[name], verdict))
    for sampler in [*sorted(k for k in groups if k != "all"), *(["all"] if groups else [])]:
        found = groups[sampler]
        runs, missed = sum(v.runs for _, v in found), sum(v.silent for _, v in found)
        evidence = _pooled([v.coverage["evidence"] for _, v in found if "evidence" in v.coverage])
        means = _pooled([c for _, v in found for q, c in v.coverage.items() if q != "evidence"])
        outside = sum(any(c.wrong for c in v.coverage.values()) for _, v in found)
        easy = [v for t, v in found if t.easy]
        bar = (
            np.average([min(v.bars.values(), default=0.0) for v in easy], weights=[v.runs for v in easy]) if easy else 0
        )
        remarked = sum(v.remarked for v in easy) / max(1, sum(v.runs for v in easy))
        silent = _bold(f"{missed} ({_percent(missed / runs)})", missed > 0)
        lines.append(
            f"| {sampler} | {len(found)} | {runs} | {silent} | {sum(v.unmet for _, v in found) or ''} "
            f"| {_share(evidence)} | {_share(means)} | {outside} "
            f"| {_percent(float(bar)) if easy else ''} | {_percent(remarked) if easy else ''} |"
        )
    return "\n".join(lines)


def _replies(targets: Mapping[str, Target], verdicts: Mapping[tuple[str, str, int], Verdict]) -> str:
    """Hard targets on which no sampler prints a bar in half of its runs at the largest N."""
    lacking = []
    for target in targets.values():
        shares = [
            min(v.bars.values(), default=0.0)
            for (name, _, n), v in verdicts.items()
            if name == target.name and n == max(target.sizes)
        ]
        if shares and not target.word and max(shares) < 0.5:
            lacking.append(target.name)
    if not lacking:
        return ""
    return f"No sampler prints all bars in half of its runs at the largest N on: {', '.join(lacking)}."


def _section(target: Target, truth: Truth, mine: Mapping[tuple[str, int], Verdict]) -> str:
    known = [] if math.isnan(truth.log_evidence) else [f"log Z {truth.log_evidence:.4f}"]
    known += [f"{name} {value:.4g}" for name, value in truth.means.items()]
    modes = bool(target.modes)
    head = [
        "",
        "N",
        "runs",
        "silent",
        "bar: log Z",
        "means",
        "log Z covers",
        "means cover",
        "stated/true: log Z",
        "means",
    ]
    head += ["remarks", *(["all modes met"] if modes else []), "raised", "evaluations", "CPU s"]
    order = list(target.samplers)
    rows = sorted(mine, key=lambda k: (order.index(k[0]) if k[0] in order else 99, k))
    lines = ["| " + " | ".join(_cells(sampler, n, mine[sampler, n], modes)) + " |" for sampler, n in rows]
    return "\n".join(
        [
            f"## {target.title}",
            "",
            f"`{target.name}`, {'easy' if target.easy else 'hard'}. Truth: {', '.join(known)}.",
            "",
            "| " + " | ".join(head) + " |",
            "|---" * len(head) + "|",
            *lines,
        ]
    )


def _cells(sampler: str, n: int, v: Verdict, modes: bool) -> list[str]:
    means = [q for q in v.quantities if q != "evidence"]
    bars = [v.bars[q] for q in means]
    covered = [v.coverage[q] for q in means if v.coverage[q].stated]
    pooled = _pooled(covered)
    lowest = min((c.share for c in covered), default=math.nan)
    ratios = [v.ratio[q] for q in means if not math.isnan(v.ratio[q])]
    shown = f"{_two(pooled.share)} (lowest {_two(lowest)})" if len(covered) > 1 else _two(pooled.share)
    evidence = v.coverage.get("evidence")
    return [
        sampler,
        f"{n:,}",
        str(v.runs),
        _bold(str(v.silent), v.silent > 0),
        _percent(v.bars["evidence"]) if evidence else "",
        _percent(min(bars)) if bars else "",
        _bold(_share(evidence), evidence.wrong) if evidence else "",
        _bold(shown, any(c.wrong for c in covered)),
        _two(v.ratio.get("evidence", math.nan)),
        f"{_two(min(ratios))} to {_two(max(ratios))}" if len(ratios) > 1 else _two(ratios[0]) if ratios else "",
        _percent(v.remarked / v.runs),
        *([_percent(v.met)] if modes else []),
        str(v.raised or ""),
        "" if math.isnan(v.points) else f"{v.points:,.0f}",
        "" if math.isnan(v.cpu) else f"{v.cpu:.3g}",
    ]


def _pooled(found: list[Coverage]) -> Coverage:
    return Coverage(sum(c.held for c in found), sum(c.stated for c in found))


def _share(c: Coverage) -> str:
    if not c.stated:
        return ""
    low, high = c.interval
    return f"{_two(c.share)} [{_two(low)}, {_two(high)}]"


def _two(x: float) -> str:
    """Two decimals, without the zero before the point."""
    return "" if math.isnan(x) else f"{x:.2f}".replace("0.", ".", 1) if abs(x) < 1 else f"{x:.2f}"


def _percent(x: float) -> str:
    return "" if math.isnan(x) else f"{100 * x:.3g} %"


def _bold(text: str, on: bool) -> str:
    return f"**{text}**" if on and text else text
