"""Draw the figures of the pages on schedules, diagnostics and relatives of diffusion into docs/images.

python scripts/draw_schedules.py [name ...] [--png FOLDER]      a minute of one core; needs motes[report]
"""

# ruff: noqa: T201

from __future__ import annotations

import io
import itertools
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from torch import Tensor

import motes
from motes import Rng
from motes.diffusion import VarianceExploding, VariancePreserving, demo, gaussian, mixture
from motes.diffusion.corruptions import Reflected, ReflectedDiffusion, poisson_noised
from motes.diffusion.diagnostics import by_noise_level, calibration, posterior_ranks
from motes.diffusion.schedule import align_your_steps
from motes.report.style import PAPER, blank, styled

FOLDER = Path(__file__).parents[1] / "docs/images"
F64 = torch.float64


def panels(*titles: str, width: float = 760, height: float = 250) -> tuple[Figure, list]:
    figure = blank(width, height, PAPER)
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    return figure, list(axes)


def decades(axis: object, *values: float) -> None:
    """Ticks of a logarithmic axis, as plain numbers."""
    axis.set_major_locator(FixedLocator(values))  # type: ignore[attr-defined]
    axis.set_major_formatter(FixedFormatter([f"{v:g}" for v in values]))  # type: ignore[attr-defined]
    axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]


def schedules() -> Figure:
    """Noise levels by step, and the error of a mixture's quantiles by number of steps."""
    process = VarianceExploding(sigma_min=0.002, sigma_max=80.0)
    denoiser = mixture(process, torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.0]]), 0.04 * torch.ones(2, 1, 1))
    pick = (Rng(0).at("pick").uniform((128, 1)) < 0.3).double()
    data = 0.2 * Rng(0).at("data").normal((128, 1)) + 1 - 3 * pick
    level = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    grid = torch.linspace(-4, 3, 20001, dtype=F64)
    cdf = sum(w * torch.special.ndtr((grid - m) / 0.2) for w, m in ((0.3, -2.0), (0.7, 1.0)))
    exact = grid[torch.searchsorted(cdf, level).clamp(max=20000)]

    def karras(steps: int) -> Tensor:
        share = torch.arange(steps + 1, dtype=F64) / steps
        ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
        return process.time(-((ends[0] + share * (ends[1] - ends[0])) ** 7).log()).clamp(0, 1)

    makers: dict[str, Callable[[int], Tensor]] = {
        "equal in log": process.times,
        "Karras": karras,
        "aligned, deterministic": lambda k: align_your_steps(denoiser, data, k, seed=Rng(1), noise=0.0),
        "aligned, stochastic": lambda k: align_your_steps(denoiser, data, k, seed=Rng(1)),
    }

    def miss(times: Tensor) -> float:
        x = 80.0 * torch.special.ndtri(level)[:, None]
        for t, s in itertools.pairwise(times):
            share = process.sigma(s) / process.sigma(t)
            x = share * x + (1 - share) * denoiser.data(x, float(t))
        return float((x[:, 0].sort().values - exact).abs().mean())

    figure, (left, right) = panels("Ten steps", "Error of deterministic steps")
    counts = (4, 6, 8, 12, 16, 24, 32)
    for (name, make), colour in zip(makers.items(), PAPER.families, strict=False):
        left.plot(range(11), process.sigma(make(10)), "o-", ms=3, lw=1.2, color=colour, label=name)
        if name != "aligned, stochastic":
            right.plot(counts, [miss(make(k)) for k in counts], "o-", ms=3, lw=1.2, color=colour, label=name)
    left.set(yscale="log", xlabel="step", ylabel="noise level")
    left.legend(fontsize=8)
    right.set(xscale="log", yscale="log", xlabel="steps", ylabel="mean distance of quantiles")
    decades(left.yaxis, 0.01, 0.1, 1, 10, 100)
    decades(right.yaxis, 0.03, 0.1, 0.3)
    decades(right.xaxis, *counts)
    return figure


def diagnostics() -> Figure:
    """Ranks, claimed errors, and a run by noise level."""
    process = VariancePreserving()
    data = Rng(0).at("x").normal((1000, 1))
    models = {"right": 1.0, "overconfident": 0.3}
    figure, (left, middle, right) = panels("Ranks of truths", "Errors made and claimed", "Particles of a run")
    times = process.times(12, "snr")[1:-1]
    for i, (name, variance) in enumerate(models.items()):
        denoiser, colour = gaussian(process, torch.zeros(1), torch.tensor([[variance]])), PAPER.families[i]
        ranks = posterior_ranks(denoiser, data, 0.4, lambda x: x[:, 0], seed=Rng(1), draws=9, steps=60)
        count = torch.bincount(ranks.rank, minlength=10)
        left.step(range(10), count, where="mid", color=colour, lw=1.4, label=f"{name}, p = {ranks.p_value:.1g}")
        found = calibration(denoiser, data, times, seed=Rng(2))
        middle.errorbar(found.noise_level, found.error.value, 2 * found.error.se, fmt="o", ms=3, lw=1, color=colour)
        middle.plot(found.noise_level, found.claimed.value, color=colour, lw=1.2, label=f"{name}, claimed")
    left.axhline(100, color=PAPER.ink, lw=1, ls=(0, (4, 3)))
    left.set(xlabel="rank among 9 draws", ylabel="images", ylim=(0, None))
    left.legend(fontsize=8)
    middle.set(xlabel="noise level", ylabel="mean square")
    middle.legend(fontsize=8)
    run = motes.sample(demo.steered_digits(7, steps=30, guidance=None), 64, seed=0, progress=False)
    table = by_noise_level(run)
    right.plot(table.noise_level, table.ess, color=PAPER.families[0], lw=1.3, label="effective size")
    right.plot(table.noise_level, table.survivors, color=PAPER.families[1], lw=1.3, label="survivors")
    right.plot(table.noise_level, table.roots, color=PAPER.families[2], lw=1.3, label="roots")
    right.set(xlabel="noise level", ylabel="particles", ylim=(0, 70))
    right.invert_xaxis()
    right.legend(fontsize=8)
    return figure


def relatives() -> Figure:
    """Reflected samples, noise on the simplex, and Poisson noise."""
    figure, (left, middle, right) = panels("In a box", "On the simplex", "Poisson noise")

    def score(u: Tensor, sigma: float) -> Tensor:
        fade = 0.8 * math.exp(-0.5 * (math.pi * sigma) ** 2)
        return -fade * math.pi * torch.sin(math.pi * u) / (1 + fade * torch.cos(math.pi * u))

    run = motes.sample(ReflectedDiffusion(score, Reflected(), 300, shape=(1,)), 20000, seed=0, progress=False)
    left.hist(run.view[:, 0].numpy(), 30, range=(0, 1), density=True, color=PAPER.faint)
    grid = torch.linspace(0, 1, 100)
    left.plot(grid, 1 + 0.8 * torch.cos(math.pi * grid), color=PAPER.families[0], lw=1.4, label="exact")
    left.legend(fontsize=8)
    left.set(xlabel="x")
    point = torch.tensor([[0.15, 0.65, 0.2]], dtype=F64).expand(250, 3)
    for i, sigma in enumerate((0.4, 0.15, 0.04)):
        y = Reflected("simplex").noised(Rng(i), point, sigma)
        place = y[:, 1] + 0.5 * y[:, 2], y[:, 2] * 3**0.5 / 2
        middle.plot(*place, ".", ms=2.5, color=PAPER.families[i], label=f"noise {sigma}")
    middle.plot([0, 1, 0.5, 0], [0, 0, 3**0.5 / 2, 0], color=PAPER.ink, lw=0.8)
    middle.set_aspect("equal")
    middle.axis("off")
    middle.legend(fontsize=8, loc="upper left", bbox_to_anchor=(-0.2, 1.05))
    for i, extra in enumerate((2, 8, 1000)):
        x = poisson_noised(Rng(i), torch.zeros(40000, 2, dtype=F64), 1.0, extra).norm(dim=1).sort().values
        tail = 1 - (torch.arange(len(x)) + 0.5) / len(x)
        keep = torch.unique((torch.logspace(0, -4, 60) * len(x)).long().clamp(1, len(x) - 1))
        keep = len(x) - 1 - keep
        right.plot(x[keep], tail[keep], color=PAPER.families[i], lw=1.4, label=f"D = {extra}")
    right.set(xscale="log", yscale="log", xlabel="distance", ylabel="share further out", xlim=(0.1, 100))
    decades(right.xaxis, 0.1, 1, 10, 100)
    decades(right.yaxis, 1e-4, 1e-3, 0.01, 0.1, 1)
    right.legend(fontsize=8)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {f.__name__: f for f in (schedules, diagnostics, relatives)}


def write(name: str, preview: Path | None = None) -> None:
    """One picture as SVG, the same bytes each time."""
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = FIGURES[name]()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
        if preview:
            figure.savefig(preview / f"{name}.png", dpi=110)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    path = FOLDER / f"{name}.svg"
    path.write_text(re.sub(r"\n\s*", "\n", svg))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[1:]
    look = Path(words.pop(words.index("--png") + 1)) if "--png" in words else None
    for name in [w for w in words if w != "--png"] or FIGURES:
        write(name, look)
