"""What `motes check` found as one HTML file: the findings, ranks in their band, predictive intervals."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from motes.core.files.atomic import write_text
from motes.density.checks import Checked, Finding
from motes.density.checks.finding import FAILED, OK
from motes.errors import needing
from motes.report import numerals
from motes.report.html import INSTALL
from motes.report.page import environment, must_be_page

ABOUT = {
    "batch": "The log-density of a point does not depend on its neighbours, nor on the call.",
    "gradient": "Gradients agree with finite differences.",
    "prior": "Draws from the prior fit its density.",
    "calibration": "Posteriors of simulated data hold the truth as often as they say.",
    "geweke": "Moving parameters and drawing data in turn keeps the prior's law.",
    "predictive": "Data from the posterior look like the observed ones.",
}
RANKED, SHOWN = 24, 24
"""How many charts of ranks, and of statistics, are shown at most."""


def report_check(checked: Checked, path: str | os.PathLike[str] = "check.html", *, title: str = "Model check") -> Path:
    """Write one self-contained HTML page that shows what `motes.density.checks.check` found.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        MotesError: the name does not end in .html.
    """
    return write_text(must_be_page(path), render_check(checked, title))


def render_check(checked: Checked, title: str = "Model check") -> str:
    """The page as text."""
    with needing(INSTALL):
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    by_name = {f.name: f for f in checked.findings}
    done = [f for f in checked.findings if f.mark in (OK, FAILED)]
    passed = sum(f.mark == OK for f in done)
    return environment().get_template("check.html.jinja").render(
        title=title,
        byline=f"motes {version('motes')}, python {platform.python_version()}",
        passed=str(passed),
        done=str(len(done)),
        ok=checked.ok,
        said="No check found anything wrong. What they do not see, like a mode that no particle reaches, may be wrong."
        if checked.ok
        else "What failed is said below, with where to look.",
        findings=[
            {"name": f.name, "mark": f.mark, "ok": f.mark == OK, "failed": f.mark == FAILED, "said": f.said,
             "about": ABOUT.get(f.name, "")}
            for f in checked.findings
        ],
        calibration=_calibration(by_name.get("calibration")),
        predictive=_predictive(by_name.get("predictive")),
    )  # fmt: skip


def _calibration(finding: Finding | None) -> dict[str, Any] | None:
    """The charts of the ranks, those furthest out of the band first."""
    if finding is None or "ranks" not in finding.numbers:
        return None
    from motes.report.charts import Chart, picture

    numbers = finding.numbers
    n, possible, limit = numbers["replicates"], numbers["possible"], numbers["band"]
    p = np.arange(1, possible) / possible
    width = limit * np.sqrt(p * (1 - p) / n)
    charts = []
    for name, ranks in numbers["ranks"].items():
        off = np.bincount(ranks, minlength=possible).cumsum()[:-1] / n - p
        furthest = float((np.abs(off) / width).max())
        note = f"{numerals.plain(furthest, 2)} of the band's width at most" + (", outside" if furthest >= 1 else "")
        svg = picture(_ranks(p, off, width, furthest >= 1), 300, 170, f"ranks{len(charts)}", f"{name}: {note}")
        charts.append((furthest, Chart(name, svg, note)))
    charts.sort(key=lambda c: -c[0])
    left = len(charts) - RANKED
    return {
        "n": numerals.count(n),
        "charts": [c for _, c in charts[:RANKED]],
        "rest": f"{left} more quantities lie further inside their bands." if left > 0 else "",
    }


def _ranks(p: np.ndarray, off: np.ndarray, width: np.ndarray, outside: bool) -> Any:
    from matplotlib.ticker import MaxNLocator

    from motes.report.style import PAGE

    def draw(ax: Any) -> None:
        x, y, w = (np.concatenate([[a], v, [b]]) for a, v, b in ((0, p, 1), (0, off, 0), (0, width, 0)))
        ax.fill_between(x, -w, w, color=PAGE.faint, alpha=0.45, linewidth=0)
        ax.axhline(0, color=PAGE.other, linewidth=0.8)
        ax.step(x, y, where="post", color=PAGE.second if outside else PAGE.accent, linewidth=1.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel("rank of the truth, from 0 to 1")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(5))

    return draw


def _predictive(finding: Finding | None) -> dict[str, Any] | None:
    """Where the statistics of the observed data lie among those of data from the prior and the posterior."""
    if finding is None or not finding.numbers:
        return None
    from motes.report.charts import Chart, picture

    charts, rows = [], []
    for k, (name, row) in enumerate(finding.numbers.items()):
        values = [row[f"{what}_{end}"] for what in ("prior", "posterior") for end in ("low", "median", "high")]
        shown = [numerals.plain(v, 3) for v in (row["observed"], *values)]
        rows.append((name, *shown, numerals.plain(row["posterior_p"], 2)))
        if k < SHOWN:
            svg = picture(_interval(row), 300, 96, f"predictive{k}", f"{name}: observed {shown[0]}")
            charts.append(Chart(name, svg, f"observed {shown[0]}"))
    return {"charts": charts, "rows": rows}


def _interval(row: dict[str, float]) -> Any:
    from matplotlib.ticker import MaxNLocator

    from motes.report.style import PAGE, bare

    low, high = min(row["observed"], row["posterior_low"]), max(row["observed"], row["posterior_high"])
    room = 0.6 * (high - low) or 1.0

    def draw(ax: Any) -> None:
        bare(ax)
        for y, what, colour in ((1, "prior", PAGE.other), (0, "posterior", PAGE.accent)):
            ends = np.clip([row[f"{what}_low"], row[f"{what}_high"]], low - room, high + room)
            ax.plot(ends, [y, y], color=colour, linewidth=3)
            if low - room <= row[f"{what}_median"] <= high + room:
                ax.plot([row[f"{what}_median"]], [y], "o", color=colour, markersize=6)
        ax.axvline(row["observed"], color=PAGE.second, linewidth=1.6)
        ax.set_xlim(low - room, high + room)
        ax.set_ylim(-0.6, 1.6)
        ax.xaxis.set_major_locator(MaxNLocator(4))

    return draw
