"""Draw the figure of the page on compositions into docs/images.

python scripts/draw_composition.py [--png FOLDER]      a minute of one core; needs motes[report]
"""

# ruff: noqa: T201

from __future__ import annotations

import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from torch import Tensor

import motes
from motes.diffusion import Denoiser, VariancePreserving, mixture
from motes.diffusion.composing.composition import Composition
from motes.diffusion.composing.driftlite import DriftLite
from motes.report.style import PAPER, blank, styled

FOLDER = Path(__file__).parents[1] / "docs/images"
F64 = torch.float64
PROCESS = VariancePreserving(beta_min=6.0, beta_max=6.0, t_min=1e-3 / 6, t_max=1.0)
GRID = torch.linspace(-5, 5, 2001, dtype=F64)


def law(weights: list[float], means: list[float], stds: list[float]) -> Denoiser:
    w, m, s = (torch.tensor(v, dtype=F64) for v in (weights, means, stds))
    return mixture(PROCESS, w, m[:, None], s[:, None, None] ** 2)


WIDE = law([0.3, 0.7], [-2.0, 1.5], [0.8, 0.9])
NARROW = law([0.6, 0.4], [-1.0, 2.0], [0.6, 0.6])
COLD = law([0.3, 0.7], [-2.0, 1.5], [0.5, 0.8])


def target(models: list[Denoiser], exponents: list[float]) -> tuple[Tensor, float]:
    """The density of a composition on the grid, and its log normaliser."""
    each = torch.stack([m.log_density(GRID[:, None], PROCESS.t_min) for m in models])
    log_p = torch.tensor(exponents, dtype=F64) @ each
    step = float(GRID[1] - GRID[0])
    z = float(torch.exp(log_p).sum()) * step
    return torch.exp(log_p) / z, float(torch.log(torch.tensor(z)))


def made(models: list[Denoiser], exponents: list[float], steps: int, **options: Any) -> Composition:
    return Composition(models, exponents, steps, shape=(1,), final="state", dtype=F64, **options)


def densities(ax: Axes, models: list[Denoiser], exponents: list[float]) -> None:
    """Raw and corrected samples of a composition against its density."""
    edges = torch.linspace(-4, 4, 51, dtype=F64)
    for rule, label, colour in (("none", "raw: no weights", PAPER.second), ("transition", "weighted", PAPER.accent)):
        run = motes.sample(made(models, exponents, 50, weights=rule), 20_000, seed=1, progress=False)
        weight = torch.softmax(run.log_weight, 0)
        mass, _ = torch.histogram(run.view[:, 0], edges, weight=weight)
        ax.stairs((mass / (edges[1] - edges[0])).numpy(), edges.numpy(), color=colour, label=label, lw=1.4)
    ax.plot(GRID.numpy(), target(models, exponents)[0].numpy(), color=PAPER.ink, lw=1, ls=(0, (4, 3)), label="exact")
    ax.set_xlim(-4, 4)
    ax.set_yticklabels([])


def draw() -> Figure:
    """Guidance and low temperature, raw and weighted; the error of the log normaliser by rule and number of steps."""
    figure = blank(760, 250, PAPER)
    left, middle, right = figure.subplots(1, 3, squeeze=False)[0]
    left.set_title("Guidance, scale 2")
    densities(left, [WIDE, NARROW], [-1.0, 2.0])
    left.legend(fontsize=8, loc="upper right")
    middle.set_title("Colder, power 2")
    densities(middle, [COLD], [2.0])
    right.set_title("Error of log Z, power 2")
    counts, exact = (12, 25, 50, 100, 200), target([COLD], [2.0])[1]
    rules = (
        ("rate", {"weights": "rate"}, PAPER.families[1]),
        ("rate, DriftLite", {"weights": "rate", "control": DriftLite(("diagonal",))}, PAPER.families[2]),
        ("transition", {"weights": "transition"}, PAPER.families[0]),
        ("energy", {"weights": "energy"}, PAPER.families[3]),
    )
    for label, options, colour in rules:
        error = []
        for steps in counts:
            model = made([COLD], [2.0], steps, **options)
            runs = [motes.sample(model, 2000, seed=s, progress=False).log_evidence for s in range(4)]
            error.append(max(abs(sum(runs) / 4 - exact), 0.002))  # what is less is the noise of these runs
        right.loglog(counts, error, "o-", ms=3, lw=1.2, color=colour, label=label)
    right.set_ylim(1e-3, 60)
    right.yaxis.set_major_locator(FixedLocator([0.01, 0.1, 1, 10]))
    right.yaxis.set_major_formatter(FixedFormatter(["0.01", "0.1", "1", "10"]))
    right.yaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_locator(FixedLocator(counts))
    right.xaxis.set_major_formatter(FixedFormatter([str(c) for c in counts]))
    right.xaxis.set_minor_locator(NullLocator())
    right.set_xlabel("steps")
    right.set_ylabel("nats")
    right.legend(fontsize=8)
    return figure


def write(preview: Path | None = None) -> None:
    """The picture as SVG, the same bytes each time."""
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": "composition"}):
        figure = draw()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
        if preview:
            figure.savefig(preview / "composition.png", dpi=110)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    path = FOLDER / "composition.svg"
    path.write_text(re.sub(r"\n\s*", "\n", svg))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # coarse steps are what is shown
    words = sys.argv[1:]
    write(Path(words[words.index("--png") + 1]) if "--png" in words else None)
