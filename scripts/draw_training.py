"""Draw the pictures of docs/training.md into docs/images; needs the extra `report` (matplotlib).

python scripts/draw_training.py        about two minutes of one core
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import motes
from motes.diffusion import load
from motes.diffusion.denoisers.pretrained import FASHION_CLASSES, FASHION_SHAPE
from motes.diffusion.training import Drift, Drifting, flow
from motes.learn import Plan, PointGenerator, build, fit
from motes.rng import Rng

IMAGES = Path(__file__).parents[1] / "docs/images"
EACH = 8


def fashion() -> None:
    """Images of each class, drawn from the model of that class, and of the model of all."""
    rows = [None, *range(len(FASHION_CLASSES))]
    figure, axes = plt.subplots(len(rows), EACH, figsize=(EACH * 0.62 + 1.0, len(rows) * 0.62))
    for row, label in zip(axes, rows, strict=True):
        model = motes.ReverseDiffusion(load("fashion", label), 40, shape=FASHION_SHAPE)
        images = motes.sample(model, EACH, seed=1, progress=False).view
        row[0].set_ylabel(
            "any" if label is None else FASHION_CLASSES[label], rotation=0, ha="right", va="center", size=8
        )
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image[0].clamp(-1, 1), cmap="gray_r", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.subplots_adjust(0.16, 0.01, 0.99, 0.99, 0.04, 0.04)
    figure.savefig(IMAGES / "fashion.png", dpi=80)


def drifting() -> None:
    """Particles along the conservative field, their ends under both fields, and a trained generator's samples."""
    angle = 2 * math.pi * Rng(0).uniform((1500, 1), dtype=torch.float32)
    ring = torch.cat([angle.cos(), angle.sin()], 1) + 0.05 * Rng(1).normal((1500, 2), dtype=torch.float32)
    begin = 0.25 * Rng(2).normal((120, 2), dtype=torch.float32) + torch.tensor([0.6, 0.0])
    figure, axes = plt.subplots(1, 3, figsize=(9, 3))
    for axis, field in zip(axes, ("conservative", "original"), strict=False):
        drift, path = Drift(field=field, scales=(0.4,)), [begin]
        for _ in range(120):
            path.append(flow(path[-1], ring[:600], drift=drift, steps=1, rate=0.5))
        track = torch.stack(path)
        axis.plot(track[:, :, 0], track[:, :, 1], color="0.75", lw=0.5)
        axis.scatter(*track[-1].T, s=6, color="tab:blue", zorder=3)
        axis.set_title(f"particles, {field}", size=9)
    network = build(lambda: PointGenerator(2), seed=Rng(3))
    plan = Plan(steps=800, batch=256, rate=3e-3, average=0.99)
    trained = fit(network, Drifting(Drift(scales=(0.4,))), ring, plan=plan, progress=False)
    made = trained.network(Rng(4).normal((400, 2), dtype=torch.float32))
    axes[2].scatter(*made.T, s=4, color="tab:orange")
    axes[2].set_title("a generator, one step", size=9)
    for axis in axes:
        axis.scatter(*ring[:400].T, s=1, color="0.4", zorder=1)
        axis.set_aspect("equal")
        axis.set_xlim(-1.5, 1.5)
        axis.set_ylim(-1.5, 1.5)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(IMAGES / "drifting.png", dpi=90)


if __name__ == "__main__":
    torch.set_num_threads(1)
    drifting()
    fashion()
