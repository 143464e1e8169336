"""Steer a denoiser that knows no classes to one digit, and learn how probable that digit is under it.

    python examples/steer_digits.py [digit] [particles]

The reward is a classifier's log p(digit | image), so the log normaliser is the log-probability of the digit among the
model's own images; drawing images without steering and averaging their probabilities must agree with it.
"""

from __future__ import annotations

import dataclasses
import math
import sys

import torch

import motes
from motes.diffusion import demo, load

SHADES = " .:-=+*#%@"


def picture(image: torch.Tensor) -> list[str]:
    """An 8 x 8 image in [-1, 1] as eight lines of text."""
    level = ((image.clamp(-1, 1) + 1) / 2 * (len(SHADES) - 1)).round().long()
    return ["".join(2 * SHADES[i] for i in row) for row in level.reshape(8, 8).tolist()]


def main(digit: int = 3, n: int = 64) -> None:
    torch.set_num_threads(1)  # images of 64 pixels leave nothing for a second thread but waiting
    model = demo.steered_digits(digit)
    run = motes.sample(model, n, seed=1)
    print(run)
    for row in run.draws(8).reshape(2, 4, 8, 8):
        print(*("   ".join(lines) for lines in zip(*map(picture, row), strict=True)), "", sep="\n")

    unsteered = dataclasses.replace(model, reward=None, guidance=None)
    images = motes.sample(unsteered, 4 * n, seed=2, progress=False).view
    p = load("digits-classifier")(images)[:, digit].exp().double()
    se = float(p.std() / p.mean()) / math.sqrt(len(p))
    print(f"log p(digit {digit}): steered {run.log_evidence:.3f} ± {run.log_evidence_se:.2g}, ", end="")
    print(f"by {len(p)} images without steering {float(p.mean().log()):.3f} ± {se:.2g}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
