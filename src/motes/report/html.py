"""A run as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from motes.core.files.atomic import write_text
from motes.core.files.visible import visible
from motes.core.run import Result, Run
from motes.errors import needing
from motes.report import facts, numerals
from motes.report.cautions import cautions, sentence
from motes.report.facts import Facts, Summary, named
from motes.report.page import environment, must_be_page

INSTALL = "a report needs matplotlib and jinja2: pip install 'motes[report]'"
TEXTS, IMAGES, MARGINALS, ROWS, LETTERS = 24, 48, 24, 200, 2000
"""How many distinct texts and images, histograms and table rows are shown, and how many letters of a text."""
SMALL = 64
"""The most pixels a side of an image that is shown pixel by pixel."""


def report(
    runs: Run | list[Run] | dict[str, Run], path: str | os.PathLike[str] = "report.html", *, title: str | None = None
) -> Path:
    """Write one self-contained HTML page that shows `runs`.

    Args:
        runs: a run, several, or several by name.
        path: the file to write, whose name ends in .html; folders that are missing are made.
        title: the heading; None is the name of the run, or how many there are.

    Returns:
        The path.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        MotesError: the name does not end in .html.
    """
    return write_text(must_be_page(path), render(runs, title))


def render(runs: Run | list[Run] | dict[str, Run], title: str | None = None) -> str:
    """The page as text."""
    with needing(INSTALL):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    from motes.report import charts

    runs = named(runs)
    read = {name: facts.read(run, name, ROWS) for name, run in runs.items()}
    sections = [section(f, runs[name], k) for k, (name, f) in enumerate(read.items(), start=1)]
    sources = list({r.key: r for run in runs.values() for r in run.references}.values())
    versions = next(iter(read.values())).versions
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            title=title or (sections[0]["name"] if len(sections) == 1 else f"{len(sections)} runs"),
            byline=", ".join(f"{k} {v}" for k, v in versions.items()),
            runs=sections,
            agreement=charts.agreement(list(read.values())),
            sources=sources,
            bibtex="\n\n".join(r.bibtex() for r in sources),
        )
    )


def section(f: Facts, run: Run, number: int) -> dict[str, Any]:
    """Everything that the template says of one run."""
    from motes.report import charts

    value, error = numerals.with_error(f.log_evidence, f.se)
    low, high = (numerals.with_error(end, f.se)[0] for end in f.interval)
    found = cautions(f)
    taken = f.steps - 1 if f.steps else f.t
    times = "once" if f.resamplings == 1 else f"{numerals.count(f.resamplings)} times"
    return {
        "anchor": f"run-{number}",
        "name": f.name.strip() or f.model,
        "shows": f.shown.kind if not f.chains else "chains",
        "quantity": f.quantity,
        "value": value,
        "error": error,
        "low": low,
        "high": high,
        "probability": chance(f),
        "se_reason": sentence(f.se_reason or "the run gave no reason"),
        "n": numerals.count(f.n),
        "ess": numerals.count(round(f.ess) if f.ess >= 10 else f.ess),
        "ess_share": _share(f.ess / f.n),
        "families": numerals.count(round(f.families) if f.families >= 10 else f.families),
        "roots": numerals.count(f.roots),
        "roots_share": _share(f.roots / f.n),
        "steps": numerals.count(f.t),
        "resamplings": f"resampled {times}" if f.resamplings else "never resampled",
        "time": numerals.seconds(f.seconds),
        "per_step": f"{numerals.seconds(f.seconds / taken)} a step" if taken > 0 and math.isfinite(f.seconds) else "",
        "seed": "none" if f.seed is None else str(f.seed),
        "result": f.result.value,
        "ok": f.result is Result.OK,
        "cautions": found,
        "serious": any(c.serious for c in found),
        "texts": texts(f) if f.shown.kind == "texts" else None,
        "images": images(f) if f.shown.kind == "images" else None,
        "marginals": marginals(f, charts.marginal) if f.summaries else None,
        "way": charts.way(f),
        "charts": charts.traces(f),
        "populations": populations(f),
        "chains": chains(f, run) if f.chains else None,
        "genealogy": None if f.chains else charts.genealogy(f, run.genealogy.note),
        "facts": details(f),
    }


def populations(f: Facts) -> list[tuple[str, ...]]:
    """A row for each population of a run with replicas: number, seed, log evidence, its error, ESS, steps, result."""
    rows = []
    for j, p in enumerate(f.populations):
        value, error = numerals.with_error(p.log_evidence, p.se)
        found = (value, error or "?") if math.isfinite(p.log_evidence) else ("", "")
        rows.append(
            (str(j), "none" if p.seed is None else str(p.seed), *found, numerals.count(round(p.ess)), str(p.steps))
            + (p.result.value,)
        )
    return rows


def chains(f: Facts, run: Run) -> dict[str, Any]:
    """What the chains have to show: their worst numbers, the table of all, and the paths of some."""
    from motes.report import charts

    out: dict[str, Any] = {"least": "?", "r_hat": "?", "worst": "", "rows": [], "charts": charts.paths(f, run)}
    out["draws"] = numerals.count(run.shown.leaves()[0][1].shape[1])
    if f.diagnosis is None:
        return out
    least, worst = f.diagnosis.least, f.diagnosis.worst
    out |= {
        "least": numerals.count(round(min(least.ess_bulk, least.ess_tail))),
        "least_name": least.name,
        "r_hat": f"{worst.apart:.3f}",
        "worst": worst.name,
    }
    for r in f.diagnosis.rows:
        mean, error = numerals.with_error(r.mean, r.mcse)
        nested = f"{r.r_hat_nested:.3f}" if math.isfinite(r.r_hat_nested) else ""
        ess = [numerals.count(round(e)) if math.isfinite(e) else "?" for e in (r.ess_bulk, r.ess_tail)]
        out["rows"].append((r.name, mean, error or "?", *ess, f"{r.r_hat:.3f}", nested))
    return out


def chance(f: Facts) -> dict[str, str] | None:
    """The normaliser as a probability, where it is one."""
    if not re.search(r"probability|\blog P\b", f.quantity) or not math.isfinite(f.log_evidence):
        return None
    out = {"value": numerals.probability(f.log_evidence), "low": "", "high": ""}
    if math.isfinite(f.se) and f.se > 0:
        out["low"] = numerals.probability(f.interval[0], 2)
        out["high"] = numerals.probability(min(f.interval[1], 0.0), 2)
    return out


def texts(f: Facts) -> dict[str, Any]:
    """The heaviest distinct texts."""
    return _distinct("text", f, TEXTS, lambda t: {"what": _shorten(t)})


def images(f: Facts) -> dict[str, Any]:
    """The heaviest distinct images, as PNG inside the page."""
    return _distinct("image", f, IMAGES, _picture) | {"small": max(f.shown.value.shape[2:]) <= SMALL}


def _distinct(what: str, f: Facts, most: int, show: Callable[[Any], dict]) -> dict[str, Any]:
    all = f.distinct
    top = all[0].weight if all else 1.0
    shown = [
        {"share": numerals.percent(d.weight), "bar": _share(d.weight / top), "count": d.count, **show(d.what)}
        for d in all[:most]
    ]
    many = f"{numerals.count(len(all))} distinct {what}{'' if len(all) == 1 else 's'}"
    rest = len(all) - len(shown)
    left = numerals.percent(sum(d.weight for d in all[most:]))
    return {
        "lead": f"{numerals.count(f.n)} particle{'' if f.n == 1 else 's'}, {many}, the heaviest first. The share is "
        f"the weight of all particles that equal the {what}.",
        "shown": shown,
        "rest": f"{numerals.count(rest)} more, which hold {left} of the weight." if rest else "",
    }


def marginals(f: Facts, draw: Callable[[Facts, Summary, int], Any]) -> dict[str, Any]:
    """Histograms of the first numbers and the table of more."""
    rows = [_marginal_row(s) for s in f.summaries]
    shown = [row | {"svg": draw(f, f.summaries[k], k)} for k, row in enumerate(rows[:MARGINALS])]
    rest = []
    if len(rows) > MARGINALS:
        rest.append(f"{numerals.count(len(rows) - MARGINALS)} more are in the table.")
    if f.hidden:
        rest.append(f"Each particle has {numerals.count(f.hidden)} further numbers, which are not shown.")
    return {"shown": shown, "rows": rows, "rest": " ".join(rest)}


def _marginal_row(s: Summary) -> dict[str, str]:
    mean, error = numerals.with_error(s.mean, s.se)
    if not error and s.sd > 0:
        mean, _ = numerals.with_error(s.mean, s.sd / 10)
    sd, low, high = (numerals.with_error(v, s.sd / 10)[0] for v in (s.sd, s.low, s.high))
    return {"name": s.name, "mean": mean, "error": error or "?", "sd": sd, "low": low, "high": high}


def details(f: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """What a second run needs to know: the call, the model's settings, the versions."""
    call = [
        ("model", f.model),
        ("particles", numerals.count(f.n)),
        *([("replicas", numerals.count(f.setup["replicas"]))] if "replicas" in f.setup else []),
        ("seed", "none: the random numbers came from an Rng" if f.seed is None else str(f.seed)),
        ("resampling", str(f.setup.get("resampling", ""))),
        (
            "ess_threshold",
            f"ESS at or below {f.setup['ess_threshold']:g} n" if f.setup.get("ess_threshold") else "never",
        ),
    ]
    if f.se_method:
        call.append(("error bar", f.se_method))
    groups = [("Run", call + [(k, v) for k, v in _flat(f.setup.get("recipe"))])]
    settings = _flat(f.settings)
    if settings:
        groups.append(("Model settings", settings))
    groups.append(("Versions", [(k, str(v)) for k, v in f.versions.items()]))
    return groups


def _flat(tree: Any, where: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines `a.b: value`."""
    if isinstance(tree, dict):
        return [line for k, v in tree.items() for line in _flat(v, f"{where}.{k}" if where else str(k))]
    if tree is None and not where:
        return []
    text = _plainly(tree)
    return [(where or "recipe", text if len(text) <= 400 else text[:400] + " …")]


def _plainly(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _shorten(text: str) -> str:
    if len(text) > LETTERS:
        return f"{visible(text[:LETTERS])} … ({numerals.count(len(text) - LETTERS)} more letters)"
    return visible(text)


def _picture(pixels: np.ndarray) -> dict[str, Any]:
    """A small image exactly, as PNG; a large one as JPEG of at most 256 pixels, so that pages stay small."""
    from PIL import Image  # comes with matplotlib

    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(image.size) <= SMALL:
        kind = "png"
        image.save(buffer, format="PNG", optimize=True)
    else:
        kind = "jpeg"
        image.thumbnail((256, 256))
        image.save(buffer, format="JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"what": f"data:image/{kind};base64,{data}", "width": image.width, "height": image.height}


def _share(x: float) -> str:
    return f"{100 * min(max(x, 0.0), 1.0):.2f}".rstrip("0").rstrip(".") if math.isfinite(x) else "0"
