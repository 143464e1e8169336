"""The charts of the HTML report: what each shows in words, and its picture as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from motes.core.run import Run
from motes.errors import plural
from motes.report import numerals, plots
from motes.report.facts import Facts, Summary
from motes.report.style import PAGE, blank, styled, to_svg


@dataclass(frozen=True)
class Chart:
    """A picture with its title; `narrow` is the same for a phone, where it needs another shape."""

    title: str
    svg: Markup
    note: str = ""
    narrow: Markup | None = None
    key: list[tuple[str, str]] = field(default_factory=list)


def picture(
    draw: Callable[[Axes], None],
    width: float,
    height: float,
    name: str,
    label: str,
    margins: tuple[float, float] | None = None,
) -> Markup:
    """One chart as SVG. The SVG is ours and safe; its only foreign words are in `label`, which is escaped."""
    with styled(PAGE):
        figure = blank(width, height, PAGE, margins)
        draw(figure.subplots())
    return Markup(to_svg(figure, name, label))


def traces(f: Facts) -> list[Chart]:
    """A chart for every telling column of the trace; what never changed is said in `way`."""
    out = []
    for k, column in enumerate(_moving(f)):
        title = plots.title_of(column)
        svg = picture(lambda ax, c=column: plots.draw_trace(ax, f, c, PAGE), 240, 150, f"{f.name}{k}", title)
        out.append(Chart(title, svg, _note(f, column)))
    return out


def paths(f: Facts, run: Run, most: int = 6) -> list[Chart]:
    """The draws of some chains, one after the other, for the first numbers of the view."""
    out = []
    for name, leaf in run.shown.leaves():
        flat = leaf.detach().cpu().double().reshape(*leaf.shape[:2], -1)
        for k in range(min(flat.shape[2], most - len(out))):
            place = [int(i) for i in np.unravel_index(k, leaf.shape[2:])]
            title = f"{name}{place if place else ''}"
            x = flat[:, :, k].numpy()
            svg = picture(lambda ax, x=x: plots.draw_paths(ax, x, PAGE), 240, 150, f"{f.name}p{len(out)}", title)
            out.append(Chart(title, svg, f"{min(len(x), plots.PATHS)} of {plural(len(x), 'chain')}"))
    return out


def way(f: Facts) -> str:
    """How the steps went, in a sentence or two."""
    if f.steps < 2:
        return "The population was drawn and weighed; no step was taken."
    n = f.resamplings
    if f.populations:
        return f"A line for each of the {len(f.populations)} populations, which share nothing."
    if f.chains:
        return "Cooling from the prior, then the warm-up, then the draws, in parts."
    said = (
        "The population was never resampled."
        if not n
        else (
            f"The population was resampled before {n} of {plural(f.steps - 1, 'step')}."
            if n < f.steps - 1
            else "The population was resampled before every step."
        )
    )
    still = [
        f"{plots.title_of(c).lower()} {_short(float(np.nanmax(f.trace[c])))}"
        for c in plots.chart_columns(f.trace)
        if c not in _moving(f) and np.nanmax(f.trace[c]) != 0
    ]
    return said + (f" Constant throughout: {', '.join(still)}." if still else "")


def genealogy(f: Facts, note: str) -> dict | None:
    """The family tree with what it says in words."""
    if f.t == 0:
        return None
    whole = f"{numerals.count(f.roots)} of {numerals.count(f.n)} time-0 ancestors have descendants"
    if f.ancestors is None:
        lead = f"{whole}; the tree itself was not kept ({note})." if note else f"{whole}; the tree was not kept."
        return {"lead": lead, "chart": _roots(f)}
    if not f.ancestors:
        return {"lead": "No particle was resampled: every particle is its own ancestor.", "chart": None}
    wide = picture(lambda ax: plots.draw_genealogy(ax, f, PAGE, 200), 820, 300, f"{f.name}wide", whole, (6, 34))
    narrow = picture(lambda ax: plots.draw_genealogy(ax, f, PAGE, 90), 310, 320, f"{f.name}narrow", whole, (6, 34))
    share = np.sort(np.bincount(_root_of(f), weights=f.weight))[::-1]
    colours = len(PAGE.families)
    big = min(colours, f.roots)
    key = [(f"family{k}", f"{numerals.percent(share[k])} of the weight") for k in range(big)]
    if f.roots > colours:
        key.append(("other", f"{numerals.count(f.roots - colours)} other ancestors"))
    key.append(("faint", "died out"))
    lead = (
        f"{whole}. Each line is a particle; lines that meet going back share a parent. Colours mark the ancestors "
        "whose descendants hold most weight, and the bars at the end are the final weights."
    )
    thinned = " Of the lines, an even selection is drawn." if f.n > 200 else ""
    thinned += f" {note[:1].upper()}{note[1:]}." if note else ""
    return {"lead": lead + thinned, "chart": Chart("", wide, narrow=narrow, key=key)}


def _root_of(f: Facts) -> np.ndarray:
    assert f.ancestors is not None
    root = np.arange(f.n)
    for _, parent in f.ancestors:
        root = root[parent]
    return root


def _roots(f: Facts) -> Chart | None:
    if "roots" not in f.trace:
        return None
    title = "Ancestors with descendants, by step"
    return Chart(title, picture(lambda ax: plots.draw_trace(ax, f, "roots", PAGE), 520, 180, f"{f.name}roots", title))


def marginal(f: Facts, s: Summary, k: int) -> Markup:
    """The histogram of one number."""
    mean, low, high = (numerals.plain(v, 3) for v in (s.mean, s.low, s.high))
    label = f"{s.name}: mean {mean}, 95 % from {low} to {high}"
    size = (138, 84) if len(f.summaries) >= 6 else (270, 130)
    return picture(lambda ax: plots.draw_marginal(ax, s, f.weight, f.ess, PAGE), *size, f"{f.name}m{k}", label, (3, 18))


def agreement(all: list[Facts]) -> list[Chart]:
    """For every model that was run more than once: whether the runs agree."""
    groups: dict[str, list[Facts]] = {}
    for f in all:
        if np.isfinite(f.log_evidence):
            groups.setdefault(f"{f.model} {f.quantity} {f.settings}", []).append(f)
    return [_agreement(group, k) for k, group in enumerate(groups.values()) if len(group) > 1]


def _agreement(group: list[Facts], k: int) -> Chart:
    y = np.array([f.log_evidence for f in group])
    n = np.array([f.n for f in group], dtype=float)
    together = float(y.max() + np.log((n * np.exp(y - y.max())).sum() / n.sum()))
    stated = np.array([f.se for f in group])
    spread = numerals.plain(float(y.std(ddof=1)), 2)
    note = f"{group[0].quantity}, nats, with 95 % intervals. "
    note += f"The {len(group)} answers spread by {spread} (one standard deviation)"
    if np.isfinite(stated).all():
        note += f"; the runs state errors of {numerals.plain(float(np.sqrt((stated**2).mean())), 2)}"
    note += f". All together: {numerals.with_error(together, float(y.std(ddof=1)) / len(y) ** 0.5)[0]} (the line)."
    names = [f.name if len(f.name) <= 22 else f.name[:21] + "…" for f in group]

    def draw(ax: Axes) -> None:
        place = np.arange(len(group))
        ax.axvline(together, color=PAGE.second, linewidth=1.2)
        error = np.nan_to_num([(f.interval[1] - f.interval[0]) / 2 for f in group])
        ax.errorbar(y, place, xerr=error, fmt="o", color=PAGE.accent, markersize=5, linewidth=1.6)
        ax.set_yticks(place, names)
        ax.set_ylim(len(group) - 0.4, -0.6)
        ax.grid(False)

    label = "log normalisers of the runs side by side"
    wide = picture(draw, 760, 46 + 20 * len(group), f"agreement{k}", label)
    narrow = picture(draw, 300, 50 + 20 * len(group), f"agreement{k}narrow", label)
    return Chart(f"Do the runs of {group[0].model} agree?", wide, note, narrow)


def _moving(f: Facts) -> list[str]:
    """The columns with a chart: those that changed, and the two that everyone asks for."""
    out = []
    for c in plots.chart_columns(f.trace):
        y = f.trace[c][np.isfinite(f.trace[c])]
        if f.chains and c in ("ess", "log_evidence"):
            continue
        if c in ("ess", "log_evidence") or (len(y) > 1 and np.ptp(y) > 1e-9 * max(abs(y).max(), 1e-300)):
            out.append(c)
    return out


def _note(f: Facts, column: str) -> str:
    y = f.trace[column][np.isfinite(f.trace[column])]
    if column == "ess":
        when = f.setup.get("ess_threshold") or 0
        rule = f"resampled (▲) at or below {when:g} n" if 0 < when < 1 else ""
        return rule or ("resampled at every step" if when else "never resampled")
    if column == "log_evidence":
        return "nats, with the final 95 % interval" if np.isfinite(f.se) else "nats"
    if column == "acceptance":
        return f"{numerals.percent(y.mean())} on average"
    if (np.diff(y) >= 0).all() or (np.diff(y) <= 0).all():
        return f"from {_short(y[0])} to {_short(y[-1])}"
    return f"between {_short(y.min())} and {_short(y.max())}"


def _short(v: float) -> str:
    return numerals.count(v) if math.isfinite(v) and v == round(v) and v >= 0 else numerals.plain(v, 3)
