"""Charts of a run, as matplotlib figures that belong to no window and leave matplotlib's settings alone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from motes.core.run import Run
from motes.errors import UnknownName
from motes.report import facts as facts_module
from motes.report import numerals
from motes.report.facts import Facts, Summary
from motes.report.lineage import lineage
from motes.report.style import PAPER, Theme, bare, blank, styled

TITLES = {
    "log_evidence": "Log normaliser so far",
    "ess": "Effective sample size",
    "acceptance": "Acceptance rate",
    "temperature": "Temperature schedule",
    "step_size": "Step size",
    "roots": "Surviving ancestors",
    "max_weight": "Largest weight",
    "entropy": "Entropy of the weights",
    "seconds": "Seconds a step",
    "evaluated": "Model evaluations",
    "evaluations": "Evaluations a particle",
    "finished": "Share of texts finished",
    "correlation": "Correlation with the start",
    "sweeps": "Sweeps of the kernel",
    "reward": "Mean reward",
}


PATHS, POINTS = 4, 400
"""Chains that are drawn, and points of each."""


def draw_paths(ax: Axes, x: np.ndarray, theme: Theme) -> None:
    """The draws (chains, draws) of a few chains, spread evenly over all of them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, PATHS).round().astype(int))
    step = max(1, x.shape[1] // POINTS)
    for k, c in enumerate(chosen):
        y = x[c, ::step]
        ax.plot(np.arange(len(y)) * step, y, color=theme.families[k % len(theme.families)], linewidth=0.7, alpha=0.85)
    ax.set_xlabel("draw")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def title_of(column: str) -> str:
    """What the chart of a trace column is called."""
    return TITLES.get(column, column.replace("_", " ").strip().capitalize() or "Unnamed")


def chart_columns(trace: dict[str, np.ndarray]) -> list[str]:
    """The columns of a trace worth a chart, most telling first: those that moved or that everyone asks for."""
    first = ["ess", "log_evidence", "temperature", "acceptance", "step_size"]
    dull = {"t", "resampled", "seconds", "max_weight", "entropy", "roots"}
    names = [c for c in first if c in trace] + sorted(c for c in trace if c not in dull and c not in first)
    return [c for c in names if np.isfinite(trace[c]).any()]


def draw_trace(ax: Axes, f: Facts, column: str, theme: Theme) -> None:
    """One column of the trace against the step."""
    step, y = f.trace["t"], f.trace[column]
    good = np.isfinite(y)
    parts = np.flatnonzero(np.diff(step[good]) <= 0) + 1  # populations, one after the other
    lines = [_thin(s, v) for s, v in zip(np.split(step[good], parts), np.split(y[good], parts), strict=True)]
    step, y = lines[-1]
    n = f.populations[-1].n if f.populations else f.n
    for s, v in lines:
        dots = {"marker": "o", "markersize": 3.2} if len(v) <= 40 and len(lines) == 1 else {}
        ax.plot(s, v, color=theme.accent, clip_on=False, zorder=3, linewidth=1 if len(lines) > 1 else None, **dots)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if column == "ess":
        if len(lines) == 1:
            ax.fill_between(step, y, 0, color=theme.accent, alpha=0.10, linewidth=0)
        ax.set_ylim(0, n * 1.02)
        when = f.setup.get("ess_threshold")
        if isinstance(when, (int, float)) and 0 < when < 1:
            ax.axhline(when * n, color=theme.second, linewidth=1, linestyle=(0, (4, 3)))
        at = f.trace["t"][f.trace.get("resampled", np.zeros(0)) > 0]
        if 0 < len(at) <= 200 and len(lines) == 1:
            ax.plot(at, 0 * at, "^", color=theme.second, markersize=4.5, clip_on=False, zorder=4)
    elif column == "acceptance":
        ax.set_ylim(0, 1)
    elif column == "temperature" and (y > 0).any() and y.max() > 50 * y[y > 0].min() and y.max() <= 1:
        ax.set_yscale("symlog", linthresh=float(y[y > 0].min()), linscale=0.4)
        ax.yaxis.set_major_locator(_decades(float(y[y > 0].min())))
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        ax.set_ylim(0, 1.1)
    elif column == "log_evidence" and np.isfinite(f.se):
        reach = (f.interval[1] - f.interval[0]) / 2
        ax.errorbar(
            step[-1], f.log_evidence, reach, color=theme.second, capsize=3, linewidth=1.6, clip_on=False, zorder=4
        )


def draw_marginal(ax: Axes, s: Summary, weight: np.ndarray, ess: float, theme: Theme) -> None:
    """The weighted histogram of one number, its mean and the interval that holds 95 %."""
    v, w = s.column.values, weight
    good = np.isfinite(v) & (w > 0)
    v, w = v[good], w[good]
    bare(ax)
    if not len(v):
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, ha="center", color=theme.muted)
        ax.set_xticks([])
        return
    atoms = np.unique(v) if len(v) < 200_000 else np.unique(v[:200_000])
    if (s.column.whole and len(atoms) <= 40) or len(atoms) <= 12:
        mass = np.array([w[v == a].sum() for a in atoms])
        gap = np.diff(atoms).min() if len(atoms) > 1 else 1.0
        ax.bar(atoms, mass, width=0.7 * gap, color=theme.accent, alpha=0.75, linewidth=0)
        top = mass.max()
        if len(atoms) == 1:
            ax.set_xlim(atoms[0] - 1, atoms[0] + 1)
    else:
        low, high = _range(v, w)
        bins = int(np.clip(np.ceil(2.2 * max(ess, 1) ** (1 / 3)), 10, 48))
        mass, edges = np.histogram(v, bins=bins, range=(low, high), weights=w)
        ax.stairs(mass, edges, fill=True, color=theme.accent, alpha=0.22, linewidth=0)
        ax.stairs(mass, edges, color=theme.accent, linewidth=1.3)
        ax.set_xlim(low, high)
        top = mass.max()
    ax.set_ylim(-0.13 * top, 1.05 * top)
    ax.axhline(0, color=theme.faint, linewidth=0.8, zorder=1)
    ax.plot([s.low, s.high], [-0.065 * top] * 2, color=theme.second, linewidth=2.6, zorder=3)
    ax.plot([s.mean], [-0.065 * top], "o", color=theme.second, markersize=5, zorder=4)
    ax.spines["bottom"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def draw_genealogy(ax: Axes, f: Facts, theme: Theme, lines: int = 240) -> None:
    """The family tree: lines that reach the end in the colour of their family, lines that die out in grey."""
    assert f.ancestors is not None
    tree = lineage(f.ancestors, f.weight, lines)
    steps = np.append(tree.steps, max(f.t, tree.steps[-1] + 1)).astype(float)
    bare(ax)
    ax.add_artist(PathPatch(_curves(tree.dead, steps), facecolor="none", edgecolor=theme.faint, linewidth=0.6))
    thick = float(np.clip(90 / max(tree.drawn, 1), 0.55, 2.2))
    colours = len(theme.families)
    for k in range(min(tree.families, colours + 1)):
        mine = tree.alive[:, 3] == k if k < colours else tree.alive[:, 3] >= colours
        colour = theme.families[k] if k < colours else theme.other
        ends = tree.end_family == k if k < colours else tree.end_family >= colours
        path = _curves(tree.alive[mine], steps, tree.end[ends])
        front = 3 if k < colours else 2
        ax.add_artist(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=thick, zorder=front))
    span = steps[-1] - steps[0]
    start = steps[-1] + 0.015 * span
    length = 0.16 * span * tree.end_weight / max(float(tree.end_weight.max()), 1e-300)
    for k in range(min(tree.families, colours + 1)):  # final weights as bars behind the end of the lines
        mine = tree.end_family == k if k < colours else tree.end_family >= colours
        path = _bars(start, tree.end[mine], length[mine], min(0.8 / max(tree.drawn, 1), 0.022))
        colour = theme.families[k] if k < colours else theme.other
        ax.add_artist(PathPatch(path, facecolor=colour, edgecolor="none", zorder=2))
    ax.set_xlim(steps[0], start + 0.165 * span)
    ax.set_ylim(1.02, -0.02)
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.set_xticks([v for v in ax.get_xticks() if 0 <= v <= steps[-1]])
    ax.spines["bottom"].set_visible(False)


def plot_trace(run: Run, columns: list[str] | None = None, theme: Theme = PAPER) -> Figure:
    """What the run recorded at every step, one panel a column (`columns=None`: the telling ones)."""
    f = facts_module.read(run, most=0)
    names = chart_columns(f.trace) if columns is None else columns
    with styled(theme):
        if not names:
            return _empty("this run recorded no steps", theme)
        figure, axes = _grid(len(names), 3, 250, 170, theme)
        for ax, name in zip(axes, names, strict=False):
            draw_trace(ax, f, name, theme)
            ax.set_title(title_of(name))
        figure.canvas.draw()
    return figure


def plot_genealogy(run: Run, theme: Theme = PAPER) -> Figure:
    """Which ancestors survive; a run whose genealogy was not kept shows their number by step."""
    f = facts_module.read(run, most=0)
    with styled(theme):
        figure = blank(560, 300, theme)
        ax = figure.subplots()
        if f.ancestors:
            draw_genealogy(ax, f, theme)
        elif "roots" in f.trace:
            draw_trace(ax, f, "roots", theme)
        else:
            return _empty("this run kept no genealogy", theme)
        ax.set_title(f"{numerals.count(f.roots)} of {numerals.count(f.n)} ancestors have descendants")
        figure.canvas.draw()
    return figure


def plot_marginals(run: Run, names: list[str] | None = None, most: int = 24, theme: Theme = PAPER) -> Figure:
    """Weighted histograms with mean and 95 % interval, of the numbers called `names` or of the first `most`."""
    f = facts_module.read(run, most=200)
    known = {s.name: s for s in f.summaries}
    if names is not None and (missing := [n for n in names if n not in known]):
        raise UnknownName("number", missing[0], known)
    chosen = [known[n] for n in names] if names is not None else f.summaries[:most]
    with styled(theme):
        if not chosen:
            return _empty(f"the particles are {f.shown.plural}, which have no marginals", theme)
        figure, axes = _grid(len(chosen), 4, 190, 130, theme)
        for ax, s in zip(axes, chosen, strict=False):
            draw_marginal(ax, s, f.weight, f.ess, theme)
            ax.set_title(s.name)
        figure.canvas.draw()
    return figure


def plot_images(run: Run, most: int = 32, theme: Theme = PAPER) -> Figure:
    """The distinct images, the heaviest first, each with the weight of all particles that equal it."""
    f = facts_module.read(run, most=0)
    with styled(theme):
        if f.shown.kind != "images":
            return _empty(f"the particles are {f.shown.plural}, not images (N, C, H, W)", theme)
        shown = f.shown.distinct(f.weight)[:most]
        figure, axes = _grid(len(shown), 8, 76, 92, theme)
        for ax, d in zip(axes, shown, strict=False):
            ax.set_axis_off()
            ax.imshow(d.what, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            share = numerals.percent(d.weight)
            ax.set_title(share, fontsize=8, loc="center", pad=3, color=theme.muted, weight="normal")
        figure.canvas.draw()
    return figure


def _grid(count: int, most: int, width: int, height: int, theme: Theme) -> tuple[Figure, np.ndarray]:
    """A figure with `count` axes, `most` in a row; the places that are left in the last row stay empty."""
    across = min(most, count)
    down = -(-count // across)
    figure = blank(width * across, height * down, theme)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes


def _empty(text: str, theme: Theme) -> Figure:
    figure = blank(320, 90, theme)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=theme.muted)
    return figure


def _thin(x: np.ndarray, y: np.ndarray, most: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points that keep every peak: the lowest and the highest of each stretch, and the ends."""
    if len(x) <= most:
        return x, y
    keep = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 2):
        keep |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
    index = np.array(sorted(keep))
    return x[index], y[index]


def _range(v: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """What a histogram shows: all but the last thousandth at each side, or everything if that is not much wider."""
    order = np.argsort(v, kind="stable")
    cumulative = np.cumsum(w[order])
    low, high = v[order][np.searchsorted(cumulative, [0.001 * cumulative[-1], 0.999 * cumulative[-1]])]
    if v.max() - v.min() < 1.3 * (high - low):
        low, high = v.min(), v.max()
    if high <= low:
        return float(low) - 1.0, float(high) + 1.0
    margin = 0.02 * (high - low)
    return float(low - margin), float(high + margin)


def _decades(smallest: float):
    from matplotlib.ticker import FixedLocator

    powers = np.arange(int(np.ceil(np.log10(smallest))), 1)
    return FixedLocator([0.0, *(10.0 ** powers[:: max(1, -(-len(powers) // 5))][::-1])])


def _curves(edges: np.ndarray, steps: np.ndarray, ends: np.ndarray | None = None) -> Path:
    """One path for many lines: S-curves from parent to child, and straight to the end of the run."""
    vertices, codes = [], []
    seen = np.unique(edges[:, [0, 1, 2]], axis=0) if len(edges) else edges
    for g, y0, y1 in seen[:, :3]:
        x0, x1 = steps[int(g) - 1], steps[int(g)]
        middle = (x0 + x1) / 2
        if abs(y1 - y0) < 1e-9:
            vertices += [(x0, y0), (x1, y1)]
            codes += [Path.MOVETO, Path.LINETO]
        else:
            vertices += [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
            codes += [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    for y in () if ends is None else ends:
        vertices += [(steps[-2], y), (steps[-1], y)]
        codes += [Path.MOVETO, Path.LINETO]
    return Path(np.array(vertices) if vertices else np.zeros((0, 2)), codes if codes else None)


def _bars(start: float, middle: np.ndarray, length: np.ndarray, height: float) -> Path:
    """One path for many horizontal bars that begin at `start`."""
    low, high, end = middle - height / 2, middle + height / 2, start + length
    left = np.full(len(middle), start)
    corners = [(left, low), (end, low), (end, high), (left, high), (left, low)]
    vertices = np.stack([np.stack(c, axis=1) for c in corners], axis=1).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(middle)
    return Path(vertices, codes if len(codes) else None)
