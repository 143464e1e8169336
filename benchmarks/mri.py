"""Which lines of k-space to measure of a slice of a real brain: entropy and variance against random and even spacing.

The prior is a mixture of low-rank normal laws fitted to slices of the MNI152 head in other poses, for which the
posterior given any lines is known in closed form: so the lines and the sampler are judged apart. The head comes with
nilearn, a wheel that `make bench` puts into build/nilearn.
Usage: python benchmarks/mri.py [--slices 4] [--head FILE.nii.gz] [--figure FILE.png]
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import statistics
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

import motes
from motes.diffusion import Denoiser, VariancePreserving
from motes.diffusion.inverse import ActiveDiffusion

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/mri.md"
FIGURE = ROOT / "docs/images/mri.png"
HEAD = ROOT / "build/nilearn/nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SIDE, LINES, NOISE = 64, 33, 0.1
TESTED, GAP = (62, 82, 102, 122), 3
GROUPS, EXAMPLES, RANK = 5, 600, 128
PARTICLES, STEPS, SCALE, BUDGETS = 32, 60, 17.0, (4, 8, 12, 16)
CHOICES = ("entropy", "variance", "random", "equispaced")
CENTRE, WIDTH, EDGE = (
    0.2,
    0.25,
    0.05,
)  # what images in [0, 1] are brought to mean 0 and variance 1 with, about; below is air


# ---------------------------------------------------------------------------------------------------- the images


def head(path: Path) -> Tensor:
    """(heights, 64, 64) axial slices in [0, 1], of a NIfTI-1 file."""
    raw = gzip.decompress(path.read_bytes())
    dims = np.frombuffer(raw, "<i2", 4, 40)
    kind = {2: "u1", 4: "<i2", 16: "<f4", 64: "<f8"}[int(np.frombuffer(raw, "<i2", 1, 70)[0])]
    start = int(np.frombuffer(raw, "<f4", 1, 108)[0])
    size = [int(d) for d in dims[1:4]]
    flat = np.frombuffer(raw, kind, math.prod(size), start)
    volume = torch.from_numpy(flat.reshape(size, order="F").astype(np.float32)).permute(2, 1, 0).flip(1)
    high, wide = 240 - size[1], 240 - size[0]
    volume = pad(volume, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    volume = (volume / volume.flatten().kthvalue(int(0.999 * volume.numel())).values).clamp(0, 1)
    return interpolate(volume[:, None], size=(SIDE, SIDE), mode="area")[:, 0]


def posed(images: Tensor, rng: motes.Rng) -> Tensor:
    """Images (n, 64, 64) turned, moved, stretched, flipped and brightened a little, standardised."""
    u = 2 * rng.uniform((len(images), 8)).float() - 1
    angle, flip = 0.15 * u[:, 0], torch.sign(u[:, 1])
    matrix = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).reshape(-1, 2, 2)
    matrix = matrix * (1 + 0.08 * u[:, 2:4])[:, :, None]
    matrix = torch.cat([matrix * torch.stack([flip, torch.ones_like(flip)], 1)[:, None], 0.08 * u[:, 4:6, None]], 2)
    grid = affine_grid(matrix, [len(images), 1, SIDE, SIDE], align_corners=False)
    out = grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    return (out * (1 + 0.1 * u[:, 6, None, None]) - CENTRE) / WIDTH


# ------------------------------------------------------------------------- a prior whose posterior is known too


@dataclass(frozen=True)
class Prior:
    """A mixture of normal laws with covariance axes diag(variances - rest) axes' + rest I.

    Attributes:
        means: (M, d).
        axes: (M, d, r), orthonormal.
        variances: (M, r), along the axes.
        rest: (M,), along everything else.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor

    def denoiser(self, process: VariancePreserving) -> Denoiser:
        means, axes, d = self.means.float(), self.axes.float(), self.means.shape[1]
        aside = torch.einsum("mdr,md->mr", axes, means)

        def posterior_mean(x: Tensor, t: Tensor) -> Tensor:
            """E[x_0 | x], of the mixture."""
            alpha, sigma = float(process.alpha(t[0])), float(process.sigma(t[0]))
            z = x.flatten(1)
            inside, outside = alpha**2 * self.variances + sigma**2, alpha**2 * self.rest + sigma**2
            along = torch.einsum("mdr,nd->nmr", axes, z) - alpha * aside
            far = (
                z.square().sum(1, keepdim=True) - 2 * alpha * z @ means.T + alpha**2 * means.square().sum(1)
            ).double()
            log_p = -0.5 * (
                far / outside
                + (along.double().square() * (1 / inside - 1 / outside[:, None])).sum(2)
                + inside.log().sum(1)
                + (d - RANK) * outside.log()
            )
            p = torch.softmax(log_p, 1).float()
            ends = (alpha * self.rest / outside).float()
            gain = (alpha * self.variances / inside).float() - ends[:, None]
            mean = (p @ (means * (1 - alpha * ends)[:, None])) + (p @ ends)[:, None] * z
            mean = mean + torch.einsum("mdr,nmr->nd", axes, p[:, :, None] * gain * along)
            return mean.reshape(x.shape)

        return Denoiser(posterior_mean, process, predicts="data", name=f"{len(means)} low-rank normals")

    def given(self, lines: list[int], y: Tensor) -> tuple[Tensor, Tensor, float]:
        """The posterior given lines of k-space.

        Args:
            lines: which.
            y: (lines, 128) their measurements.

        Returns:
            The mean and the standard deviation of each pixel, (64, 64), and how many nats the lines have told.
        """
        rows = wave()[lines].flatten(0, 1)  # (2k, 64), the same for every row of the image
        y = y.double().reshape(len(lines), SIDE, 2).permute(1, 0, 2).flatten(1)  # (64, 2k)
        found = [self._one(m, rows, y) for m in range(len(self.means))]
        log_p = torch.stack([f[0] for f in found])
        p = torch.softmax(log_p, 0)
        means, variances = torch.stack([f[1] for f in found]), torch.stack([f[2] for f in found])
        mean = torch.einsum("m,myx->yx", p, means)
        variance = torch.einsum("m,myx->yx", p, variances + (means - mean) ** 2)
        told = float(sum(q * f[3] for q, f in zip(p.tolist(), found, strict=True)))
        return mean, variance.sqrt(), told + math.log(len(p)) + float(torch.special.entr(p).sum().neg())

    def _one(self, m: int, rows: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        rest, mean = float(self.rest[m]), self.means[m].reshape(SIDE, SIDE)
        factor = self.axes[m] * (self.variances[m] - rest).sqrt()
        factor = factor.T.reshape(RANK, SIDE, SIDE)
        noise = rest * rows.square().sum(1) + NOISE**2  # the rows of the transform are orthogonal
        seen, away = factor @ rows.T, y - mean @ rows.T
        scaled = (seen / noise).flatten(1)
        root = torch.linalg.cholesky(torch.eye(RANK, dtype=torch.float64) + scaled @ seen.flatten(1).T)
        told = scaled @ away.flatten()
        z = torch.cholesky_solve(told[:, None], root)[:, 0]
        back = rest * rows.T / noise  # (64, 2k)
        left = away - torch.einsum("r,ryk->yk", z, seen)
        centre = mean + torch.einsum("r,ryx->yx", z, factor) + left @ back.T
        moved = factor - seen @ back.T
        variance = torch.linalg.solve_triangular(root, moved.flatten(1), upper=False).square().sum(0)
        variance = variance.reshape(SIDE, SIDE) + rest * (1 - (back @ rows).diagonal())
        logdet = 2 * root.diagonal().log().sum() + SIDE * noise.log().sum()
        log_p = -0.5 * ((away.square() / noise).sum() - told @ z + logdet)
        gain = 0.5 * float(logdet - SIDE * len(noise) * math.log(NOISE**2))
        return log_p, centre, variance, gain


def fitted(volume: Tensor) -> Prior:
    """The prior, from slices at least `GAP` away from those that it is tested with.

    Axes are fitted to every second slice and the variances to the others: those of the same slices would be too small.
    """
    heights = [z for z in range(50, 135) if min(abs(z - tested) for tested in TESTED) > GAP]
    parts, each, everyone = [], math.ceil(len(heights) / GROUPS), torch.arange(EXAMPLES)
    for i in range(GROUPS):
        mine = torch.tensor(heights[i * each : (i + 1) * each])
        halves = (mine[::2], mine[1::2])
        fit, check = (
            posed(volume[half[everyone % len(half)]], motes.Rng(k).at(f"examples-{i}").shard(everyone))
            for k, half in enumerate(halves)
        )
        fit, check = fit.flatten(1).double(), check.flatten(1).double()
        mean = fit.mean(0)
        axes = torch.linalg.svd(fit - mean, full_matrices=False)[2][:RANK].T
        along = (check - mean) @ axes
        head = check * WIDTH + CENTRE > EDGE
        rest = (check - mean - along @ axes.T)[head].square().mean()
        parts.append((mean, axes, along.square().mean(0).clamp(min=1.01 * float(rest)), rest))
    return Prior(*(torch.stack(p) for p in zip(*parts, strict=True)))


# --------------------------------------------------------------------------------------------------- measurement


def wave() -> Tensor:
    """(33, 2, 64) the half of the orthonormal Fourier basis that a real image needs, real and imaginary parts."""
    cycles = torch.arange(LINES)[:, None] * torch.arange(SIDE) % SIDE
    turn = 2 * math.pi * cycles.double() / SIDE
    sine = torch.sin(turn).where(2 * cycles % SIDE != 0, 0.0)
    return torch.stack([torch.cos(turn), -sine], 1) / SIDE**0.5


WAVE = wave().float()


def encoded(images: Tensor) -> Tensor:
    """(n, 33, 128) all phase-encoding lines of images; the transform along a line is unitary and left out."""
    return torch.einsum("nyx,lcx->nlyc", images, WAVE.to(images)).flatten(2)


# ------------------------------------------------------------------------------------------------- the benchmark


def scores(mean: Tensor, truth: Tensor, covered: tuple[Tensor, Tensor]) -> dict[str, float]:
    """PSNR, and the shares of the pixels of the head inside of the 50 % and 90 % intervals."""
    error = float(((mean - truth) * WIDTH).square().mean())
    inside = truth * WIDTH + CENTRE > EDGE
    half, most = (float(c[inside].double().mean()) for c in covered)
    return {"psnr": -10 * math.log10(error), "half": half, "most": most}


def compare(prior: Prior, volume: Tensor, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    process = VariancePreserving()
    denoiser, found, shown = prior.denoiser(process), [], {}
    for i, height in enumerate(TESTED[:count]):
        truth = posed(volume[height][None], motes.Rng(7).at("pose", inner=i).shard(torch.tensor([0])))[0]
        y = encoded(truth[None])[0]
        y = y + NOISE * motes.Rng(7).at("noise", inner=i).normal(tuple(y.shape))
        for budget in BUDGETS:
            for choice in CHOICES:
                start = time.process_time()
                model = ActiveDiffusion(
                    denoiser,
                    STEPS,
                    measure=encoded,
                    ask=lambda line, y=y: y[line],
                    std=NOISE,
                    budget=budget,
                    shape=(SIDE, SIDE),
                    choice=choice,
                    first=(0,),
                    scale=SCALE,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run = motes.sample(model, PARTICLES, seed=i, progress=False)
                seconds = time.process_time() - start
                weight = torch.softmax(run.particles.log_weight, 0)
                x, asked = run.view.double(), run.particles.shared["asked"].tolist()
                below = torch.einsum("n,nyx->yx", weight, (x < truth).double())
                mean = torch.einsum("n,nyx->yx", weight, x)
                ranks = ((below - 0.5).abs() <= 0.25, (below - 0.5).abs() <= 0.45)
                centre, std, told = prior.given(asked, y[asked])
                z = ((truth - centre) / std).abs()
                row = {"choice": choice, "budget": budget, "height": height, "told": told, "seconds": seconds}
                row |= {f"particles {k}": v for k, v in scores(mean, truth, ranks).items()}
                row |= {f"exact {k}": v for k, v in scores(centre, truth, (z < 0.6745, z < 1.6449)).items()}
                row |= {"ess": float(1 / weight.square().sum()), "roots": len(run.particles.root.unique())}
                row["spread"] = float(torch.einsum("n,nyx->yx", weight, (x - mean) ** 2).mean().sqrt() / std.mean())
                found.append(row)
                print(
                    ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
                    flush=True,
                )
                if not i:
                    shown[choice, budget] = mean, asked
        shown.setdefault("truth", truth)
    return found, shown


def table(found: list[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    out = [
        "| lines | chosen by | " + " | ".join(columns.values()) + " |",
        "|---:|---|" + "---:|" * len(columns),
    ]
    for budget in BUDGETS:
        for choice in CHOICES:
            mine = [r for r in found if r["budget"] == budget and r["choice"] == choice]
            values = []
            for key in columns:
                mean = statistics.fmean(r[key] for r in mine)
                share = key.endswith(("half", "most"))
                values.append(f"{mean:.0%}" if share else f"{mean:.0f}" if key == "told" else f"{mean:.1f}")
            out.append(f"| {budget} | {choice} | " + " | ".join(values) + " |")
    return out


def draw(shown: dict[str, Any], path: Path) -> None:
    """The first slice: the lines as they grow in number, and what is made of them."""
    figure = Figure(figsize=(9.6, 5.6), dpi=80, layout="constrained")
    rows = figure.subplots(3, 1 + len(BUDGETS), width_ratios=[1] * (1 + len(BUDGETS)))
    for axes in rows.flat:
        axes.set_axis_off()
    look = {"cmap": "gray", "vmin": -CENTRE / WIDTH, "vmax": (1 - CENTRE) / WIDTH}
    rows[0, 0].imshow(shown["truth"], **look)
    rows[0, 0].set_title("the slice", fontsize=9)
    for k, budget in enumerate(BUDGETS, 1):
        mask = np.zeros((LINES, 2 * LINES - 1))
        for order, line in enumerate(shown["entropy", budget][1]):
            mask[:, [LINES - 1 + line, LINES - 1 - line]] = 1 - 0.6 * order / budget
        rows[0, k].imshow(mask, cmap="magma", vmin=0, vmax=1, aspect="auto")
        rows[0, k].set_title(f"{budget} of {LINES} lines, by entropy", fontsize=9)
        for row, choice in ((1, "entropy"), (2, "random")):
            image = shown[choice, budget][0]
            error = float(((image - shown["truth"]) * WIDTH).square().mean())
            rows[row, k].imshow(image, **look)
            rows[row, k].set_title(f"{choice}: {-10 * math.log10(error):.1f} dB", fontsize=9)
    figure.savefig(path, pil_kwargs={"optimize": True})


def wrapped(text: str) -> list[str]:
    """Lines of a result file."""
    return textwrap.wrap(text, 110, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=len(TESTED))
    parser.add_argument("--head", type=Path, default=HEAD)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    if not args.head.exists():
        sys.exit(f"no {args.head}: `make bench` installs it, or give --head")
    matplotlib.use("Agg")
    volume = head(args.head)
    prior = fitted(volume)
    print(f"standard deviations: rest {prior.rest.sqrt().tolist()}, first {prior.variances[:, 0].sqrt().tolist()}")
    found, shown = compare(prior, volume, args.slices)
    draw(shown, args.figure)
    seconds = statistics.fmean(r["seconds"] for r in found)
    result = [
        "# MRI",
        "",
        f"PyTorch {torch.__version__}. Made by `benchmarks/mri.py`.",
        "",
        *wrapped(
            f"Axial slices of the MNI152 T1 head that comes with nilearn, 64 x 64, at {args.slices} heights; each is "
            f"turned, moved and stretched at random, and the prior (a mixture of {GROUPS} normal laws of {RANK} axes "
            f"each) is fitted to other poses of slices more than {GAP} mm away. It is one head, an average of many: "
            f"easier than a patient. A candidate is one of {LINES} phase-encoding lines, with noise of {NOISE} of the "
            f"image's standard deviation; line 0 is always measured first. `ActiveDiffusion` with {PARTICLES} "
            f"particles, {STEPS} steps and `scale={SCALE:g}`, the largest standard deviation of the prior (the default "
            f"of 1 diverges), {seconds:.1f} s of CPU time a run. Means over the slices."
        ),
        "",
        "## Which lines",
        "",
        *wrapped(
            "The exact posterior given the lines that each rule chose, so that the sampler's own error is left out. "
            "Told: the information in the lines under the prior, nats; by as much has the entropy of the posterior "
            "fallen."
        ),
        "",
        *table(found, {"told": "told", "exact psnr": "PSNR, dB", "exact half": "in 50 %", "exact most": "in 90 %"}),
        "",
        "## What the particles make of them",
        "",
        *wrapped(
            "The weighted particles of the same runs. Spread: their standard deviation over the exact one. Roots: how "
            f"many of the first particles have descendants at the end. {PARTICLES} particles in 4,096 dimensions come "
            "down to one family: they choose the lines well and find the image nearly, and their intervals are not to "
            "be believed."
        ),
        "",
        *table(
            found,
            {
                "particles psnr": "PSNR, dB",
                "particles half": "in 50 %",
                "particles most": "in 90 %",
                "spread": "spread",
                "ess": "ESS",
                "roots": "roots",
            },
        ),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(result) + "\n")
    print("\n".join(result))


if __name__ == "__main__":
    sys.exit(main())
