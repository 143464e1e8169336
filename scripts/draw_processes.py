"""Draw the figure of the page on processes and integrators into docs/images.

python scripts/draw_processes.py [--png FOLDER]      half a minute of one core; needs motes[report]
"""

# ruff: noqa: T201

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from torch import Tensor

from motes import Rng
from motes.core.particles import Particles
from motes.diffusion import Denoiser, Process, VariancePreserving, mixture
from motes.diffusion.flows.flow import ProbabilityFlow
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.report.style import PAPER, blank, styled

FOLDER = Path(__file__).parents[1] / "docs/images"
F64 = torch.float64
WEIGHTS, MEANS, STDS = (torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [-2.0, 1.0], [0.3, 0.4]))


def two(process: Process) -> Denoiser:
    """Two normals on the line."""
    return mixture(process, WEIGHTS, MEANS[:, None], (STDS**2)[:, None, None])


def quantiles(level: Tensor) -> Tensor:
    grid = torch.linspace(-5, 4, 40001, dtype=F64)
    cdf = (WEIGHTS * torch.special.ndtr((grid[:, None] - MEANS) / STDS)).sum(1)
    return grid[torch.searchsorted(cdf, level).clamp(max=len(grid) - 1)]


def path(model: ProbabilityFlow, noise: Tensor) -> list[Tensor]:
    """The states at all times, from given starting noise (n,)."""
    state = noise[:, None] * model.denoiser.process.start_std
    x = {"state": state, "denoised": model.denoiser.data(state, float(model.times[0]))}
    x |= {"previous": x["denoised"]} if model.integrator == "dpm++2m" else {}
    particles, states = Particles.start(x, torch.zeros(len(noise), dtype=F64)), [state[:, 0]]
    while not model.done(particles):
        particles = model.step(Rng(3).at("step", step=particles.t + 1), particles)
        states.append(particles.x["state"][:, 0])
    return [*states, model.view(particles)[:, 0]]


def processes() -> Figure:
    """Paths of samples under two processes, without and with churn; errors by model evaluations."""
    figure = blank(760, 270, PAPER)
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.5])
    noise = torch.special.ndtri((torch.arange(16, dtype=F64) + 0.5) / 16)
    straight, curved = RectifiedFlow(), VariancePreserving(t_max=1.0)
    for ax, process, churn, title in (
        (axes[0], straight, 0.0, "rectified flow"),
        (axes[1], curved, 0.0, "variance preserving"),
        (axes[2], straight, 1.0, "rectified flow, churn 1"),
    ):
        model = ProbabilityFlow(two(process), 150, integrator="heun", churn=churn, shape=(1,), dtype=F64)
        states = torch.stack(path(model, noise)[:-1])
        for i in range(16):
            family = PAPER.families[0 if float(states[-1, i]) > -0.5 else 1]
            ax.plot(model.times, states[:, i], color=family, lw=0.9)
        ax.invert_xaxis()
        ax.set(xlabel="time", title=title, ylim=(-3.2, 3.2))
    level = (torch.arange(500, dtype=F64) + 0.5) / 500
    noise, exact = torch.special.ndtri(level), quantiles(level)
    for i, (name, integrator, spacing) in enumerate(
        (("ddim", "ddim", "time"), ("heun", "heun", "time"), ("dpm++2m", "dpm++2m", "snr"))
    ):
        calls, errors = [], []
        for steps in (5, 10, 20, 40, 80, 160):
            k = steps // 2 if integrator == "heun" else steps
            if k < 4:
                continue
            process = VariancePreserving(schedule="cosine", t_max=0.9999)
            model = ProbabilityFlow(
                two(process), process.times(k, spacing), integrator=integrator, shape=(1,), dtype=F64
            )
            errors.append(float((path(model, noise)[-1] - exact).abs().mean()))
            calls.append(2 * k + 1 if integrator == "heun" else k + 1)
        axes[3].plot(calls, errors, "o-", ms=3, lw=1.4, color=PAPER.families[i], label=name)
        print(name, [f"{c}: {e:.4f}" for c, e in zip(calls, errors, strict=True)])
    axes[3].set(xscale="log", yscale="log", xlabel="calls of the model", title="error of the quantiles")
    for axis, values in ((axes[3].xaxis, (10, 30, 100)), (axes[3].yaxis, (0.001, 0.01, 0.1))):
        axis.set_major_locator(FixedLocator(values))
        axis.set_major_formatter(FixedFormatter([f"{v:g}" for v in values]))
        axis.set_minor_locator(NullLocator())
    axes[3].legend(fontsize=8)
    return figure


def write(preview: Path | None = None) -> None:
    """The picture as SVG, the same bytes each time."""
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": "processes"}):
        figure = processes()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
        if preview:
            figure.savefig(preview / "processes.png", dpi=110)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    target = FOLDER / "processes.svg"
    target.write_text(re.sub(r"\n\s*", "\n", svg))
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[1:]
    write(Path(words[words.index("--png") + 1]) if "--png" in words else None)
