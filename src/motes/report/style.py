"""How charts look, and how a matplotlib figure becomes SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from motes.core.files.visible import visible

STYLE = Path(__file__).parent / "templates" / "charts.mplstyle"


@dataclass(frozen=True)
class Theme:
    """The colours of a chart; `families` tells apart what has no order."""

    ink: str = "#1d2330"
    muted: str = "#6b7280"
    grid: str = "#e6e4df"
    faint: str = "#d3d0c8"
    other: str = "#8d95a5"
    surface: str = "#ffffff"
    accent: str = "#3450c8"
    second: str = "#c2571a"
    families: tuple[str, ...] = ("#3450c8", "#d0661f", "#12866f", "#b0387f", "#8a7a12", "#5b8ec9")


PAPER = Theme()
"""For a figure that stands on white."""

# In the page every colour is a CSS variable. Matplotlib only knows colours, so each variable travels as a colour that
# nothing else uses and is put back by `to_svg`.
_NAMES = [f.name for f in fields(Theme) if f.name != "families"] + [f"family{k}" for k in range(6)]
_SENTINELS = {f"#0{k:x}1e5{j:x}": name for k, j, name in ((k, (7 * k) % 16, name) for k, name in enumerate(_NAMES))}
_OF = {name: colour for colour, name in _SENTINELS.items()}
PAGE = Theme(
    **{f.name: _OF[f.name] for f in fields(Theme) if f.name != "families"},
    families=tuple(_OF[f"family{k}"] for k in range(6)),
)
"""For a figure inside the HTML report, where the page sets the colours."""


def _rc(theme: Theme) -> dict:
    # Start from matplotlib's own defaults so that a user's style sheet cannot break the report.
    kept = ("backend", "interactive", "toolbar")  # not a matter of looks
    rc = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(kept)}
    rc |= matplotlib.rc_params_from_file(STYLE, use_default_template=False)
    colours = {
        "axes.titlecolor": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.faint,
        "grid.color": theme.grid,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "text.color": theme.ink,
    }
    return rc | colours


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Matplotlib's settings for one of our charts; what was set before is back afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Glyph|findfont|font family).*")
        matplotlib.rcParams.update(_rc(theme))
        yield


def blank(width: float, height: float, theme: Theme, margins: tuple[float, float] | None = None) -> Figure:
    """A figure of `width` x `height` points that belongs to no window and to no global list.

    With `margins`, in points beside and below one panel, that is where it stands; otherwise labels are measured.
    """
    surface = "none" if theme is PAGE else theme.surface
    figure = Figure(figsize=(width / 72, height / 72), dpi=144, facecolor=surface)
    FigureCanvasAgg(figure)
    if margins is None:
        figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.05)
    else:
        beside, below = margins
        figure.subplots_adjust(left=beside / width, right=1 - beside / width, bottom=below / height, top=1 - 3 / height)
    return figure


def bare(ax: Axes) -> None:
    """Take away what stands around the data."""
    ax.set_yticks([])
    ax.grid(False)


def to_svg(figure: Figure, name: str, label: str, theme: Theme = PAGE) -> str:
    """The figure as an SVG element to be put into a page; `label` tells a screen reader what it shows."""
    for words in figure.findobj(Text):
        words.set_text(visible(words.get_text()))  # fonts have no glyphs for halves of a pair
    buffer = io.StringIO()
    with styled(theme), matplotlib.rc_context({"svg.hashsalt": name}):
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = visible(buffer.getvalue())
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, flags=re.S)
    svg = re.sub(r'(<g) id="[A-Za-z]+[\w.]*_\d+"', r"\1", svg)  # the same names in every figure
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)  # the page's own
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    for colour, variable in _SENTINELS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"\s*\n\s*", " ", svg)
    width, height = (float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())  # type: ignore[union-attr]
    label = visible(label).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}">'
    return head + svg[svg.index(">") + 1 :].strip()
