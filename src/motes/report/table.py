"""One line a run, as plain text for a terminal."""

from __future__ import annotations

import math

from motes.core.run import Run
from motes.report import numerals
from motes.report.facts import Facts, named, read

HEAD = ("what", "particles", "", "ESS", "families", "time", "result")
RIGHT = (False, True, True, True, True, True, False)


def table(runs: Run | list[Run] | dict[str, Run], *, ascii: bool = False) -> str:
    """What, particles, log normaliser (by the name that the runs have for it) with its standard error, effective sample
    size and number of families, time and result of each run.

    Args:
        runs: a run, several, or several by name.
        ascii: write `+-` and `-` for terminals that know no other letters.
    """
    facts = [read(run, name, most=0) for name, run in named(runs).items()]
    quantities = {f.quantity for f in facts if not f.chains}
    quantity = quantities.pop() if len(quantities) == 1 else "log normaliser"
    rows = [(*HEAD[:2], quantity, *HEAD[3:]), *map(row, facts)]
    cells = _align_errors(rows)
    if ascii:
        cells = [[_ascii(c) for c in line] for line in cells]
    widths = [max(numerals.width(line[k]) for line in cells) for k in range(len(HEAD))]
    rule = ("-" if ascii else "─") * (sum(widths) + 3 * (len(HEAD) - 1))
    lines = ["   ".join(_pad(c, w, r) for c, w, r in zip(line, widths, RIGHT, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], rule, *lines[1:]])


def missing(runs: Run | list[Run] | dict[str, Run], *, ascii: bool = False) -> str:
    """Why runs have no error bar, a line for each reason; empty where all have one."""
    why: dict[str, list[str]] = {}
    for name, run in named(runs).items():
        error = run.standard_error
        if run.shown.weighted and math.isnan(error.value):
            why.setdefault(error.reason or "the run gave no reason", []).append(name)
    of = {reason: f" ({', '.join(who)})" if len(named(runs)) > 1 else "" for reason, who in why.items()}
    lines = [f"no error bar{of[reason]}: {reason}" for reason in why]
    return "\n".join(_ascii(line) if ascii else line for line in lines)


def row(f: Facts) -> tuple[str, ...]:
    """The cells of one run."""
    value, error = numerals.with_error(f.log_evidence, f.se)
    ess, normaliser = f.ess, f"{value} ± {error or '?'}"
    if f.chains:
        normaliser = ""
        ess = min(f.diagnosis.least.ess_bulk, f.diagnosis.least.ess_tail) if f.diagnosis else math.nan
    return (
        " ".join(f.name.split()) or f.model,
        numerals.count(f.n),
        normaliser,
        "?" if math.isnan(ess) else numerals.count(round(ess) if ess >= 10 else ess),
        "" if f.chains else numerals.count(round(f.families) if f.families >= 10 else f.families),
        numerals.seconds(f.seconds),
        f.result.value,
    )


def _align_errors(rows: list[tuple[str, ...]]) -> list[list[str]]:
    """The same cells with the ± of the third column under each other."""
    parts = [r[2].split(" ± ") for r in rows]
    most = max((numerals.width(p[1]) for p in parts if len(p) == 2), default=0)
    out = []
    for r, p in zip(rows, parts, strict=True):
        cell = f"{p[0]} ± {_pad(p[1], most, False)}" if len(p) == 2 else r[2]
        out.append([*r[:2], cell, *r[3:]])
    return out


def _pad(text: str, columns: int, right: bool) -> str:
    space = " " * (columns - numerals.width(text))
    return space + text if right else text + space


def _ascii(text: str) -> str:
    others = {"±": "+-", numerals.MINUS: "-", numerals.INFINITY: "inf", numerals.THIN: " ", "×": "x"}
    for letter, plain in others.items():
        text = text.replace(letter, plain)
    return text.encode("ascii", "backslashreplace").decode()
