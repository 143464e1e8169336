"""Real terrain behind 40 noisy heights, by a pretrained diffusion model in an ONNX file that has no gradients.

Contenders spend the same number of model evaluations. The terrain is three patches of the elevation model that
Matplotlib ships; the model is that of `adaptive-terrain-diffusion`, a wheel that `make bench` puts into build/terrain.
Usage: python benchmarks/terrain.py [--patches 3] [--weights FILE.onnx] [--figure FILE.png]
"""

from __future__ import annotations

import argparse
import io
import math
import os
import statistics
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import matplotlib
import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import motes
from motes.diffusion import EDM, AdaptiveReward, Denoiser, Guided, ValueDecoding, from_onnx, guidance
from motes.diffusion.guidance import Guidance, StepContext, Twist

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/terrain.md"
FIGURE = ROOT / "docs/images/terrain.png"
WEIGHTS = ROOT / "build/terrain/terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx"
SIDE, CELLS, SEEN = 128, 24, 40
MEAN, STD, NOISE = -0.3, 0.2, 0.1  # in the model's units, where its own terrains lie
LEVELS = torch.tensor([80.0, 20.0, 6.0, 2.0])
FRESH = {"integrator": "exponential", "noise": 10.0}  # so much noise that a step keeps nothing: each is noised afresh
CORNERS = ((20, 40), (150, 60), (240, 250))
WEIGHED = "weights alone (FK steering)"
PUSHED = "guidance alone"
CORRECTED = "guidance, weighed, with twist"
TOLD = f"shown the whole terrain in noise of {LEVELS[-1]:g}"
MORE = CORRECTED + ", four times as many"


# ------------------------------------------------------------------------------------------------- the problem


@dataclass(frozen=True)
class Problem:
    """A patch of the earth, and what was measured of it.

    Attributes:
        truth: (1, 128, 128) heights in the model's units.
        where: (SEEN,) which pixels of the flattened patch were measured.
        y: (SEEN,) the measurements.
    """

    truth: Tensor
    where: Tensor
    y: Tensor

    def reward(self, images: Tensor) -> Tensor:
        """(n,) the log-likelihood up to a constant, nats."""
        return -0.5 * (images.flatten(1)[:, self.where] - self.y).double().square().sum(1) / NOISE**2


def problem(patch: int) -> Problem:
    heights = np.load(str(get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)))["elevation"].astype(np.float32)
    row, column = CORNERS[patch]
    cut = torch.from_numpy(heights[row : row + CELLS, column : column + CELLS].copy())[None, None]
    wide = torch.nn.functional.interpolate(cut, size=(SIDE, SIDE), mode="bicubic", align_corners=True)[0]
    truth = MEAN + STD * (wide - wide.mean()) / wide.std()
    rng = motes.Rng(patch).at("problem")
    where = rng.at("where").uniform((1, SIDE * SIDE)).argsort(1)[0, :SEEN]
    return Problem(truth, where, truth.flatten()[where] + NOISE * rng.at("noise").normal((1, SEEN))[0])


# ------------------------------------------------------- a normal field with the statistics of the measurements


class Field:
    """A normal field with a Matern covariance (smoothness 3/2) whose knobs are fitted to the measurements.

    By itself it is kriging; and it stands in for the Jacobian that the ONNX file cannot give: under the field, what a
    noisy state says of the heights at the measured places is linear in the state.
    """

    def __init__(self, problem: Problem):
        self.y, self.where = problem.y.double(), problem.where
        pixel = torch.arange(SIDE * SIDE)
        self.pixel = torch.stack([pixel // SIDE, pixel % SIDE], 1)
        self.at = self.pixel[problem.where]
        far = (self.at[:, None] - self.at[None]).double().norm(dim=2)
        eye = torch.eye(SEEN, dtype=torch.float64)
        best = -math.inf
        for length in (8.0, 12.0, 18.0, 27.0, 40.0):
            for std in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
                root = torch.linalg.cholesky(matern(far, length, std) + NOISE**2 * eye)
                one, y = (torch.cholesky_solve(v[:, None], root)[:, 0] for v in (torch.ones_like(self.y), self.y))
                mean = float(y.sum() / one.sum())
                fit = -0.5 * float((self.y - mean) @ (y - mean * one)) - float(root.diagonal().log().sum())
                if fit > best:
                    best, self.mean, self.length, self.std = fit, mean, length, std
        side = torch.fft.fftfreq(2 * SIDE, 1 / (2 * SIDE), dtype=torch.float64)  # distances on a torus twice as wide
        around = matern(torch.hypot(side[:, None], side[None]), self.length, self.std)
        self.spectrum = torch.fft.fft2(around).real.clamp(min=0)

    def known(self, sigma: float) -> tuple[Tensor, Tensor]:
        """What a state of noise sigma says of the measured heights: their covariance given it, and their weights in it.

        Returns:
            (SEEN, SEEN) without the noise of the measurement, and (SEEN, pixels).
        """
        left = self._table(self.spectrum * sigma**2 / (self.spectrum + sigma**2), self.at)
        return left, self._table(self.spectrum / (self.spectrum + sigma**2), self.pixel)

    def kriging(self) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation at each pixel given the measurements, (pixels,)."""
        cross = self._table(self.spectrum, self.pixel)
        inside = self._table(self.spectrum, self.at) + NOISE**2 * torch.eye(SEEN, dtype=torch.float64)
        solved = torch.linalg.solve(inside, cross)
        return self.mean + (self.y - self.mean) @ solved, (self.std**2 - (cross * solved).sum(0)).clamp(min=1e-6).sqrt()

    def _table(self, spectrum: Tensor, to: Tensor) -> Tensor:
        values = torch.fft.ifft2(spectrum).real
        away = (self.at[:, None] - to[None]) % (2 * SIDE)
        return values[away[..., 0], away[..., 1]]


def matern(far: Tensor, length: float, std: float) -> Tensor:
    scaled = math.sqrt(3) * far / length
    return std**2 * (1 + scaled) * torch.exp(-scaled)


class Kriged(Guidance):
    """The mean of the next state given the measurements, if the field were the law of what is to come.

    The next state is x ~ N(prediction, s^2) and the measurements are N(mean + B (x - mean), left + noise^2) given x, so
    the mean moves by s^2 B' (left + noise^2 + s^2 B B')^-1 (y - mean - B (prediction - mean)).
    """

    def __init__(self, field: Field):
        self.field, self.tables = field, {}

    @property
    def graph(self) -> bool:
        return False

    def __call__(self, context: StepContext) -> Tensor:
        field, s = self.field, context.s
        if s not in self.tables:
            left, weights = field.known(s)
            seen = left + NOISE**2 * torch.eye(SEEN, dtype=torch.float64) + context.std**2 * weights @ weights.T
            self.tables[s] = weights, torch.linalg.solve(seen, context.std**2 * weights)
        weights, gain = self.tables[s]
        away = context.pull * context.denoised.flatten(1).double() - field.mean
        shift = (field.y - field.mean - away @ weights.T) @ gain
        return shift.reshape(context.x.shape).to(context.x)


class Foreseen(Twist):
    """The log-density of the measurements if the prediction were right up to what the field says is still open."""

    def __init__(self, problem: Problem, field: Field):
        self.problem, self.field = problem, field

    def __call__(self, context: StepContext) -> Tensor:
        left, _ = self.field.known(context.sigma)
        root = torch.linalg.cholesky(left + NOISE**2 * torch.eye(SEEN, dtype=torch.float64))
        residual = self.problem.y.double() - context.denoised.flatten(1)[:, self.problem.where].double()
        white = torch.linalg.solve_triangular(root, residual.T, upper=False)
        return -0.5 * white.square().sum(0)


# --------------------------------------------------------------------------------------------------- contenders


class Counted:
    """A model whose evaluations are counted, an image each."""

    def __init__(self, model: Any):
        self.model, self.count = model, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.count += len(x)
        return self.model(x, t)


def contenders(denoiser: Denoiser, problem: Problem, field: Field, n: int) -> dict[str, tuple[Any, int]]:
    """By name: a model and its number of particles; each spends 4 n evaluations, the last four times that."""
    common: dict[str, Any] = {"shape": (1, SIDE, SIDE), **FRESH}
    plain = motes.ReverseDiffusion(denoiser, LEVELS, reward=problem.reward, schedule="linear", **common)
    push, steps = Kriged(field), len(LEVELS) - 1
    weighed = replace(plain, guidance=push, twist=Foreseen(problem, field))
    flat = guidance.manifold_preserving(NOISE**2, reward=problem.reward)
    return {
        WEIGHED: (plain, n),
        "`ValueDecoding`, 5 proposals": (ValueDecoding(plain, proposals=5), n * len(LEVELS) // (1 + 5 * steps)),
        "`AdaptiveReward`": (AdaptiveReward(denoiser, LEVELS, reward=problem.reward, **common), n),
        f"{PUSHED}, `manifold_preserving`": (
            Guided(denoiser, LEVELS, guidance=flat, reward=problem.reward, **common),
            n,
        ),
        PUSHED: (Guided(denoiser, LEVELS, guidance=push, reward=problem.reward, **common), n),
        CORRECTED: (weighed, n),
        MORE: (weighed, 4 * n),
    }


def measured(problem: Problem, images: Tensor, weight: Tensor) -> dict[str, float]:
    """How weighted images (n, 1, 128, 128) do: at the measurements, and at all other heights, in terrain stds."""
    hidden = torch.ones(SIDE * SIDE, dtype=torch.bool)
    hidden[problem.where] = False
    x, y = images.flatten(1).double(), problem.truth.flatten().double()
    mean = weight @ x
    seen = (mean[problem.where] - problem.y).square().mean().sqrt() / NOISE
    x, y, mean = x[:, hidden], y[hidden], mean[hidden]
    below = weight @ (x < y).double() + 0.5 * weight @ (x == y).double()
    spread = torch.zeros_like(y)
    for i in range(len(x)):
        spread += weight[i] * (weight @ (x - x[i]).abs())
    return {
        "seen": float(seen),
        "error": float((mean - y).square().mean().sqrt()) / STD,
        "crps": float((weight @ (x - y).abs() - 0.5 * spread).mean()) / STD,
        "half": float((below - 0.5).abs().le(0.25).double().mean()),
        "most": float((below - 0.5).abs().le(0.45).double().mean()),
        "ess": float(1 / weight.square().sum()),
    }


def normal(problem: Problem, field: Field) -> dict[str, float]:
    """The same numbers for kriging, whose law is normal."""
    hidden = torch.ones(SIDE * SIDE, dtype=torch.bool)
    hidden[problem.where] = False
    mean, std = field.kriging()
    z = ((problem.truth.flatten().double() - mean) / std)[hidden]
    p, density = torch.special.ndtr(z), torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    crps = std[hidden] * (z * (2 * p - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return {
        "seen": float((mean[problem.where] - problem.y).square().mean().sqrt()) / NOISE,
        "error": float((z * std[hidden]).square().mean().sqrt()) / STD,
        "crps": float(crps.mean()) / STD,
        "half": float((p - 0.5).abs().le(0.25).double().mean()),
        "most": float((p - 0.5).abs().le(0.45).double().mean()),
        "ess": math.nan,
    }


# ------------------------------------------------------------------------------------------------- the benchmark


def compare(denoiser: Denoiser, counted: Counted, patches: int, n: int) -> tuple[dict[str, list[dict]], dict[str, Any]]:
    rows: dict[str, list[dict[str, float]]] = {}
    shown: dict[str, Any] = {}

    def note(name: str, found: dict[str, float], calls: int, seconds: float) -> None:
        rows.setdefault(name, []).append({**found, "calls": calls, "seconds": seconds})
        print(f"{name}: " + ", ".join(f"{k} {v:.3g}" for k, v in rows[name][-1].items()), flush=True)

    for patch in range(patches):
        p = problem(patch)
        field = Field(p)
        print(f"patch {patch}: field mean {field.mean:.3f}, length {field.length}, std {field.std}")
        note("kriging", normal(p, field), 0, 0.0)
        start, total = time.process_time(), len(LEVELS) * n
        noise = LEVELS[0] * motes.Rng(patch).at("one step").normal((total, 1, SIDE, SIDE))
        images = torch.cat([denoiser.data(x, float(LEVELS[0])) for x in noise.split(16)])
        log_weight = p.reward(images)
        seconds = time.process_time() - start
        best = torch.zeros(total, dtype=torch.float64)
        best[log_weight.argmax()] = 1.0
        note("one step, as they are (the prior)", measured(p, images, torch.full_like(best, 1 / total)), total, seconds)
        note(f"best of {total}, one step", measured(p, images, best), total, seconds)
        note("one step, weighted", measured(p, images, torch.softmax(log_weight, 0)), total, seconds)
        told = p.truth + LEVELS[-1] * motes.Rng(patch).at("told").normal((n, 1, SIDE, SIDE))
        even = torch.full((n,), 1 / n, dtype=torch.float64)
        note(TOLD, measured(p, denoiser.data(told, float(LEVELS[-1])), even), n, 0.0)
        shown = {"problem": p, "best": images[log_weight.argmax()], "kriging": field.kriging()} if not patch else shown
        for name, (model, particles) in contenders(denoiser, p, field, n).items():
            counted.count, start = 0, time.process_time()
            run = motes.sample(model, particles, seed=patch, progress=False)
            seconds = time.process_time() - start
            weight = torch.softmax(run.particles.log_weight, 0)
            note(name, measured(p, run.view, weight), counted.count, seconds)
            if not patch:
                shown[name] = run.view, weight
    return rows, shown


def table(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = [
        "| | evaluations | at the heights measured, in noise | error elsewhere | CRPS | in 50 % | in 90 % | ESS |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in rows.items():
        mean = {key: statistics.fmean(f[key] for f in found) for key in found[0]}
        alone = name.startswith("best")
        lines.append(
            f"| {name} | {mean['calls']:.0f} | {mean['seen']:.1f} | {mean['error']:.2f} | {mean['crps']:.2f} | "
            + ("| | |" if alone else f"{mean['half']:.0%} | {mean['most']:.0%} | ")
            + ("" if alone else "|" if math.isnan(mean["ess"]) else f"{mean['ess']:.1f} |")
        )
    return lines


def draw(shown: dict[str, Any], path: Path) -> None:
    """The first patch: the truth with its measurements, and what was made of them."""
    p = shown["problem"]
    panels = [("terrain", p.truth), ("best of 64", shown["best"]), ("kriging", shown["kriging"][0])]
    for name, title in ((WEIGHED, "FK steering"), (PUSHED, "guidance alone"), (CORRECTED, "guided and weighed")):
        images, weight = shown[name]
        panels.append((title + ", mean", torch.einsum("n,nchw->chw", weight, images.double())))
    images, weight = shown[CORRECTED]
    panels += [(f"a particle of it ({weight[i]:.0%})", images[i]) for i in weight.argsort(descending=True)[:2]]
    figure = Figure(figsize=(9.6, 5.0), dpi=80, layout="constrained")
    for axes, (title, image) in zip(figure.subplots(2, 4).flat, panels, strict=True):
        axes.imshow(np.asarray(image).reshape(SIDE, SIDE), cmap="gist_earth", vmin=-0.85, vmax=0.25)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
        row, column = p.where // SIDE, p.where % SIDE
        axes.scatter(column, row, c=p.y, s=12, cmap="gist_earth", vmin=-0.85, vmax=0.25, edgecolors="k", linewidths=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def wrapped(text: str) -> list[str]:
    """Lines of a result file."""
    return textwrap.wrap(text, 110, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patches", type=int, default=3)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    if not args.weights.exists():
        sys.exit(f"no {args.weights}: `make bench` installs it, or give --weights")
    matplotlib.use("Agg")
    denoiser = from_onnx(args.weights, EDM(), extra={"difficulty": 0.5}, threads=1)
    counted = Counted(denoiser.model)
    denoiser = replace(denoiser, model=counted)
    rows, shown = compare(denoiser, counted, args.patches, args.particles)
    draw(shown, args.figure)
    levels = ", ".join(f"{t:g}" for t in LEVELS.tolist())
    once = statistics.fmean(r["seconds"] / r["calls"] for name in (WEIGHED, CORRECTED) for r in rows[name])
    lines = [
        "# Terrain",
        "",
        f"PyTorch {torch.__version__}. Made by `benchmarks/terrain.py`.",
        "",
        *wrapped(
            "A pretrained model in an ONNX file (`adaptive-terrain-diffusion` 0.4.2, 128 x 128, distilled for one "
            f"step, without gradients) and {SEEN} noisy heights of {args.patches} real patches ({CELLS} x {CELLS} "
            f"cells of the Jacksboro fault, brought to 128 x 128 and to a standard deviation of {STD}; noise {NOISE}). "
            f"Samplers of several steps noise afresh at the levels {levels}; {once:.2f} s of CPU time an evaluation. "
            "`guidance` is "
            "the normal field of kriging in the place of the Jacobian. Means over the patches, a seed each; errors and "
            "CRPS in standard deviations of the terrain, at all heights not measured; the first error is that of the "
            "mean, in standard deviations of the noise (about 1 is right). The intervals are those of the weighted "
            f"particles. *{TOLD.capitalize()}* is no contender but what the model makes of the answer. "
            "Difficulty, levels, noise and the size of the patches were settled by trial runs on the first patch."
        ),
        "",
        *table(rows),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
