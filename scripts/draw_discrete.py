"""Draw the figure of the page on discrete diffusion into docs/images.

python scripts/draw_discrete.py [--png FOLDER]      half a minute of one core; needs motes[report]
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

import motes
from motes.diffusion.discrete import (
    LocalReward,
    MarkovLaw,
    Masked,
    Ordered,
    ReverseDiscrete,
    first_hitting,
    parallel_cost,
)
from motes.report.style import PAPER, blank, styled

FOLDER = Path(__file__).parents[1] / "docs/images"
F64 = torch.float64
LENGTH, GAIN = 40, 0.4
TRANSITION = torch.tensor(
    [[0.55, 0.1, 0.15, 0.2], [0.2, 0.4, 0.3, 0.1], [0.15, 0.45, 0.3, 0.1], [0.25, 0.1, 0.1, 0.55]], dtype=F64
)
"""A, C, G, T: islands of C and G."""


def reward(x: Tensor) -> Tensor:
    return GAIN * ((x == 1) | (x == 2)).sum(1).double()


def exact_counts(law: MarkovLaw) -> Tensor:
    """The law of the number of C and G under the tilt by exp(reward), by recursion along the sequence."""
    strong = torch.tensor([False, True, True, False])
    table = torch.zeros(LENGTH + 1, 4, dtype=F64)  # by count and last letter
    table[0, ~strong], table[1, strong] = law.initial[~strong], law.initial[strong]
    for step in law.transition:
        ahead = table @ step
        table = torch.zeros_like(table)
        table[:, ~strong] = ahead[:, ~strong]
        table[1:, strong] = ahead[:-1, strong]
    tilted = table.sum(1) * torch.exp(GAIN * torch.arange(LENGTH + 1))
    return tilted / tilted.sum()


def discrete() -> Figure:
    """The cost of parallel unmasking by number of steps; counts under guidance with its weights and without."""
    figure = blank(760, 270, PAPER)
    left, right = figure.subplots(1, 2)
    left.set_title("Cost of unmasking in parallel")
    right.set_title("Steered towards C and G")
    law = MarkovLaw(torch.full((4,), 0.25), TRANSITION, LENGTH)
    for i, schedule in enumerate(("linear", "cosine")):
        process = Masked(4, schedule=schedule)  # type: ignore[arg-type]
        model = law.model(process)
        data, _ = first_hitting(motes.Rng(0), model, 1500)
        steps = [1, 2, 4, 8, 16, 32, 64]
        costs = [parallel_cost(motes.Rng(k), model, data, k) for k in steps]
        left.errorbar(
            steps,
            [c.value for c in costs],
            [2 * c.se for c in costs],
            color=PAPER.families[i],
            lw=1.4,
            capsize=2,
            label=schedule,
        )
    left.set(xscale="log", yscale="log", xlabel="steps", ylabel="nats a sequence", ylim=(0.02, 15))
    for axis, ticks in ((left.xaxis, (1, 4, 16, 64)), (left.yaxis, (0.1, 1, 10))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FixedFormatter([f"{v:g}" for v in ticks]))
        axis.set_minor_locator(NullLocator())
    left.legend(fontsize=8)
    process = Masked(4)
    model = ReverseDiscrete(
        law.model(process),
        LENGTH,
        reward=reward,
        guidance=LocalReward(2.0),
        rule=Ordered("confidence"),
        schedule="linear",
    )
    run = motes.sample(model, 4000, seed=0, progress=False)
    rng = motes.Rng(1)
    particles = model.init(rng.at("init", step=0), 4000)
    while not model.done(particles):  # the same guidance, never resampled or weighed
        particles = model.step(rng.at("step", step=particles.t + 1), particles)
    for i, (x, weight, label) in enumerate(
        (
            (particles.x["filled"], torch.full((4000,), 1 / 4000, dtype=F64), "guidance alone"),
            (run.view, torch.softmax(run.log_weight, 0), "with weights"),
        )
    ):
        count = (reward(x) / GAIN).round().long()
        share = torch.bincount(count, weights=weight, minlength=LENGTH + 1)
        right.step(range(LENGTH + 1), share, where="mid", color=PAPER.families[i], lw=1.2, label=label)
    right.plot(range(LENGTH + 1), exact_counts(law), ".", color=PAPER.ink, ms=4, label="exact")
    right.set(xlabel="C and G in 40 letters", ylabel="probability", xlim=(8, 41), ylim=(0, None))
    right.legend(fontsize=8)
    return figure


def write(preview: Path | None = None) -> None:
    """The picture as SVG, the same bytes each time."""
    buffer = io.StringIO()
    with styled(PAPER), matplotlib.rc_context({"svg.hashsalt": "discrete"}):
        figure = discrete()
        figure.savefig(buffer, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
        if preview:
            figure.savefig(preview / "discrete.png", dpi=110)
    svg = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    path = FOLDER / "discrete.svg"
    path.write_text(re.sub(r"\n\s*", "\n", svg))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(sys.argv[2]) if sys.argv[1:2] == ["--png"] else None)
