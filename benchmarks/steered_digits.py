"""Handwritten digits, steered to a class and seen through noise: four ways at equal cost, against what is exact.

Steering: scikit-learn's 8 x 8 digits from the denoiser that comes with motes, tilted by the classifier's
log-probability of a class. Judged by another classifier, by how many training images the results resemble, and by the
model's own frequency of the class in 10,000 images that nobody steered.

Inverse problems: half of an image, or a blurred image, in strong noise. With the exact denoiser of the 1,797 images the
posterior is a sum over them, so class probabilities and log p(y) are compared with Bayes' rule; with the trained one
the truth is an image of the model itself, which intervals must cover as often as they say.

Usage: python benchmarks/steered_digits.py [--seeds 20] [--measurements 24] [--truths 50] [--unsteered 10000]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch
from torch import Tensor

import motes
from motes.core.resampling import find_scheme
from motes.diffusion import DIGITS_PROCESS, DIGITS_SHAPE, Guided, ReverseDiffusion, empirical, inverse, load
from motes.errors import MotesWarning
from motes.rng import Rng

torch.set_num_threads(1)
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks._digits import Data, known, mean, operators, quantile, spread

RESULT = HERE / "results" / "steered_digits.md"
PICTURE = HERE.parent / "docs" / "images" / "steered_digits.png"
DIGITS = (1, 3, 8)
STEPS, N, BEST = 25, 64, 8
F64 = torch.float64


# ---------------------------------------------------------------- steering


@dataclass
class Tally:
    """What the seeds of one method and one digit gave."""

    accuracy: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    distinct: list[float] = field(default_factory=list)
    ess: list[float] = field(default_factory=list)
    log_z: list[float] = field(default_factory=list)
    se: list[float] = field(default_factory=list)
    image: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def row(data: Data, images: Tensor, weight: Tensor, reward: Tensor, digit: int, tally: Tally, seed: int) -> None:
    """Add the numbers of one population. Diversity is counted on BEST images that are drawn by weight."""
    tally.accuracy.append(float(weight @ (data.classes(images) == digit).to(F64)))
    tally.reward.append(float(weight @ reward))
    tally.image.append((weight @ images.flatten(1).to(F64)).reshape(images.shape[1:]))
    chosen = find_scheme("multinomial")(Rng(seed).at("shown"), weight.log(), n=BEST)
    tally.distinct.append(float(len(data.nearest(images[chosen]).unique())))


Tallies = dict[int, dict[str, Tally]]
Truth = dict[int, dict[str, Any]]


def steer(data: Data, seeds: int, unsteered: int) -> tuple[Tallies, Truth, dict[str, Any]]:
    classifier, denoiser = load("digits-classifier"), load("digits")
    plain = ReverseDiffusion(denoiser, STEPS, shape=DIGITS_SHAPE, micro_batch=64)
    own = motes.sample(plain, unsteered, seed=1000, progress=False).view
    log_p = classifier(own).to(F64)
    tallies: Tallies = {}
    truth: Truth = {}
    shown: dict[str, Any] = {}
    for digit in DIGITS:

        def reward(images: Tensor, digit: int = digit) -> Tensor:
            return classifier(images)[:, digit]

        p = log_p[:, digit].exp()
        weight = p / p.sum()
        ideal = Tally()
        for seed in range(seeds):
            some = torch.arange(seed * unsteered // seeds, (seed + 1) * unsteered // seeds)
            row(data, own[some], p[some] / p[some].sum(), log_p[some, digit], digit, ideal, seed)
        truth[digit] = {
            "log_z": float(p.mean().log()),
            "se": float(p.std() / p.mean() / math.sqrt(len(p))),
            "image": (weight @ own.flatten(1).to(F64)).reshape(DIGITS_SHAPE),
            "accuracy": float(weight @ (data.classes(own) == digit).to(F64)),
            "reward": float(weight @ log_p[:, digit]),
            "distinct": sum(ideal.distinct) / seeds,
        }
        base = replace(plain, reward=reward, schedule="constant")
        guided = {"denoiser": denoiser, "steps": STEPS, "reward": reward, "shape": DIGITS_SHAPE, "micro_batch": 64}
        methods: dict[str, Any] = {
            "weights alone": base,
            "guidance alone": Guided(guidance="reward", **guided),
            "guidance alone, three times as strong": Guided(guidance=3.0, **guided),
            "guidance with its weights": replace(base, guidance=0.5),
            f"best of {BEST}": replace(base, schedule="end"),
        }
        tallies[digit] = {name: Tally() for name in methods}
        for name, model in methods.items():
            tally = tallies[digit][name]
            for seed in range(seeds):
                begin = time.process_time()
                alone = name.startswith("best")
                run = motes.sample(model, N, seed=seed, progress=False, ess_threshold=0 if alone else 0.5)
                tally.seconds.append(time.process_time() - begin)
                if alone:
                    best = motes.diffusion.sampling.best_of(run, BEST)
                    even = torch.full((len(best.images),), 1 / len(best.images), dtype=F64)
                    row(data, best.images, even, best.reward, digit, tally, seed)
                else:
                    row(data, run.view, run.weight, run.particles.x["reward"], digit, tally, seed)
                if not alone and not name.startswith("guidance alone"):
                    tally.ess.append(run.ess)
                    tally.log_z.append(run.log_evidence)
                    tally.se.append(run.log_evidence_se)
                if seed == 0 and digit == 8:
                    shown[name] = (best.images, even) if alone else (run.view, run.weight)
    return tallies, truth, shown


# ---------------------------------------------------------------- inverse problems


def against_bayes(data: Data, measurements: int) -> dict[str, dict[str, float]]:
    """The exact denoiser of the data: class probabilities and log p(y) beside sums over the 1,797 images."""
    denoiser, found = empirical(DIGITS_PROCESS, data.images), {}
    member = torch.nn.functional.one_hot(data.labels, 10).to(F64)
    for name, (operator, noise) in operators().items():
        rows = []
        for i in range(measurements):
            rng = Rng(7).at(name, step=i)
            which = rng.at("image").integers((1,), len(data.images))
            clean = operator.apply(data.images[which])[0]
            y = clean + noise * rng.at("noise").normal(tuple(clean.shape), dtype=torch.float32)
            observation = inverse.Observation(operator, y, noise, scale=0.6)
            like = observation.reward(data.images)
            exact, evidence = torch.softmax(like, 0), float(like.logsumexp(0)) - math.log(len(like))
            times = DIGITS_PROCESS.times(40, "snr")
            model = inverse.posterior(denoiser, times, observation, shape=DIGITS_SHAPE)
            run = motes.sample(model, 512, seed=i, progress=False)
            near = data.nearest(run.view)
            mean = run.mean(lambda images, near=near: member[near])
            p, q = exact @ member, mean.value
            known_error = torch.isfinite(mean.se) & (p > 0.02) & (p < 0.98)
            label = int(data.labels[which])
            rows.append({
                "images in the posterior": float(1 / exact.square().sum()),
                "effective sample size": run.ess,
                "error of class probabilities": float((p - q).square().mean().sqrt()),
                "of as many independent draws": float((p * (1 - p) / 512).mean().sqrt()),
                "classes within 2 se": float(((p - q).abs() <= 1.96 * mean.se)[known_error].to(F64).mean()),
                "log p(y): estimate - exact": run.log_evidence - evidence,
                "log p(y): its se": run.log_evidence_se,
                "log p(y) within 2 se": float(abs(run.log_evidence - evidence) <= 1.96 * run.log_evidence_se),
                "log-score of the true class": float(q[label].clamp(min=1 / 512).log()),
                "log-score, exactly": float(p[label].log()),
            })  # fmt: skip
            if math.isnan(run.log_evidence_se):
                rows[-1]["log p(y) within 2 se"] = math.nan
        found[name] = {}
        for key in rows[0]:
            values = torch.tensor([r[key] for r in rows], dtype=F64)
            seen = values[torch.isfinite(values)]
            found[name][key] = float(seen.mean())
            if key == "log p(y): estimate - exact":
                found[name]["log p(y): spread"] = float(seen.std())
            if key == "log p(y): its se":
                found[name]["runs without an error bar"] = float(len(values) - len(seen))
    return found


def calibrated(truths: int) -> tuple[dict[tuple[str, str], dict[str, float]], dict[str, Any]]:
    """The trained denoiser: how often intervals cover the pixels of truths that are the model's own images."""
    denoiser = load("digits")
    model = ReverseDiffusion(denoiser, STEPS, shape=DIGITS_SHAPE, micro_batch=64)
    own = motes.sample(model, truths, seed=77, progress=False).view
    found, shown = {}, {}
    for name, (operator, noise) in operators().items():
        covered: dict[str, list[Tensor]] = {}
        for i in range(truths):
            clean = operator.apply(own[i : i + 1])[0]
            y = clean + noise * Rng(8).at(name, step=i).normal(tuple(clean.shape), dtype=torch.float32)
            observation = inverse.Observation(operator, y, noise, scale=0.6)
            weighed = inverse.posterior(denoiser, STEPS, observation, shape=DIGITS_SHAPE, micro_batch=64)
            raw = Guided(
                denoiser,
                STEPS,
                guidance="reward",
                reward=observation.reward,
                shape=DIGITS_SHAPE,
                twist=observation,
                micro_batch=64,
            )
            for method, sampler in (("guidance with its weights", weighed), ("guidance alone", raw)):
                run = motes.sample(sampler, N, seed=i, progress=False)
                x, truth = run.view.flatten(1).to(F64), own[i].flatten().to(F64)
                inside = []
                for share in (0.5, 0.9):
                    low, high = (quantile(x, run.weight, (1 + s * share) / 2) for s in (-1, 1))
                    inside.append(((truth >= low) & (truth <= high)).to(F64).mean())
                middle = run.weight @ x
                error = (middle - truth).square().mean().sqrt()
                covered.setdefault(method, []).append(torch.stack([*inside, error, torch.tensor(run.ess, dtype=F64)]))
                if i == 0 and method == "guidance with its weights":
                    shown[name] = (operator, y, own[i], run.view, run.weight)
        for method, values in covered.items():
            table = torch.stack(values)
            mean, se = table.mean(0), table.std(0) / math.sqrt(len(table))
            names = ("50", "90", "error", "ess")
            found[name, method] = {k: float(v) for k, v in zip(names, mean, strict=True)}
            found[name, method] |= {f"{k} se": float(v) for k, v in zip(names, se, strict=True)}
    return found, shown


# ---------------------------------------------------------------- what is written


def draw(steered: dict[str, Any], inverted: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    wide = 16
    figure, axes = plt.subplots(len(steered) + 2, wide, figsize=(wide * 0.62, (len(steered) + 2) * 0.86))
    for axis in axes.flat:
        axis.axis("off")

    def image(axis: Any, pixels: Tensor, title: str = "") -> None:
        axis.imshow(pixels.reshape(pixels.shape[-2:]), cmap="gray_r", vmin=-1, vmax=1)
        axis.set_title(title, fontsize=6, pad=1)

    for line, (name, (images, weight)) in zip(axes, steered.items(), strict=False):
        line[0].text(-0.6, 1.45, name, transform=line[0].transAxes, fontsize=8, weight="bold")
        for axis, i in zip(line, range(min(wide, len(images))), strict=False):
            image(axis, images[i], f"{len(images) * float(weight[i]):.2f}")
    for line, (name, (operator, y, truth, images, weight)) in zip(axes[-2:], inverted.items(), strict=True):
        title = f"{name} in noise: measured, truth, mean; then images with their weights"
        line[0].text(-0.6, 1.45, title, transform=line[0].transAxes, fontsize=8, weight="bold")
        image(line[0], operator.adjoint(y[None])[0])
        image(line[1], truth)
        image(line[2], (weight.to(images.dtype) @ images.flatten(1)).reshape(images.shape[1:]))
        for axis, i in zip(line[3:], range(wide - 3), strict=True):
            image(axis, images[i], f"{len(images) * float(weight[i]):.2f}")
    figure.subplots_adjust(left=0.03, right=0.99, top=0.95, bottom=0.01, hspace=0.75, wspace=0.1)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)


def steering_rows(tallies: Tallies, truth: Truth) -> list[str]:
    """A line a method, over all digits."""

    def over(pick: Callable[[int], float]) -> float:
        return mean([pick(d) for d in DIGITS])

    want = [over(lambda d, k=k: truth[d][k]) for k in ("accuracy", "reward", "distinct")]
    out = [f"| the tilted law itself | {100 * want[0]:.1f} % | {want[1]:.3f} | {want[2]:.1f} | 0 | | |"]
    for name in tallies[DIGITS[0]]:
        of = {d: tallies[d][name] for d in DIGITS}
        gap = over(
            lambda d, of=of: float((torch.stack(of[d].image).mean(0) - truth[d]["image"]).square().mean().sqrt())
        )
        ess = f"{over(lambda d, of=of: mean(of[d].ess)):.0f}" if of[DIGITS[0]].ess else ""
        out.append(
            f"| {name} | {100 * over(lambda d, of=of: mean(of[d].accuracy)):.1f} % "
            f"| {over(lambda d, of=of: mean(of[d].reward)):.3f} | {over(lambda d, of=of: mean(of[d].distinct)):.1f} "
            f"| {gap:.3f} | {ess} | {over(lambda d, of=of: mean(of[d].seconds)):.2f} |"
        )
    return out


def normaliser_rows(tallies: Tallies, truth: Truth) -> list[str]:
    out = []
    for digit in DIGITS:
        want, se = truth[digit]["log_z"], truth[digit]["se"]
        for name, tally in tallies[digit].items():
            if not tally.log_z:
                continue
            pairs = [(z, s) for z, s in zip(tally.log_z, tally.se, strict=True) if math.isfinite(s)]
            inside = sum(abs(z - want) <= 1.96 * math.hypot(s, se) for z, s in pairs)
            level = math.log(mean([math.exp(z) for z in tally.log_z]))
            out.append(
                f"| {digit} | {name} | {want:.3f} ± {se:.3f} | {level:.3f} ± "
                f"{spread([math.exp(z - level) for z in tally.log_z]) / math.sqrt(len(tally.log_z)):.3f} "
                f"| {spread(tally.log_z):.3f} | {mean(tally.se):.3f} | {inside} of {len(pairs)} |"
            )
    return out


def bayes_rows(found: dict[str, dict[str, float]]) -> list[str]:
    keys = list(next(iter(found.values())))
    return [f"| {key} | " + " | ".join(f"{found[name][key]:.3g}" for name in found) + " |" for key in keys]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--measurements", type=int, default=24)
    parser.add_argument("--truths", type=int, default=50)
    parser.add_argument("--unsteered", type=int, default=10_000)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "the guidance is not corrected", MotesWarning)  # known: it is compared here
    data, begin = known(), time.process_time()
    tallies, truth, steered = steer(data, arguments.seeds, arguments.unsteered)
    bayes = against_bayes(data, arguments.measurements)
    covered, inverted = calibrated(arguments.truths)
    draw(steered, inverted)
    machine = platform.processor() or platform.machine()
    out = [
        "# Steered digits",
        "",
        textwrap.fill(
            f"Classes {', '.join(map(str, DIGITS))} of scikit-learn's 8 x 8 digits by the classifier that comes with "
            f"motes; {N} particles, {STEPS} steps, so {N * (STEPS + 1)} evaluations of the denoiser in every row, "
            f"{arguments.seeds} seeds. The judge is a support vector machine that learned from half of the data and is "
            f"right about {100 * data.right:.1f} % of the other half. Distinct: how many of the training images are "
            f"nearest to {BEST} results drawn by weight. Error of the mean: root mean square over pixels, of the mean "
            "image over all seeds, from that of the tilted law. The tilted law itself: the model's own "
            f"{arguments.unsteered} images, weighed by the classifier's probability.",
            110,
        ),
        "",
        f"{date.today()}, motes {motes.__version__}, torch {torch.__version__}, one thread of {machine}; "
        f"{time.process_time() - begin:.0f} s of processor time.",
        "Made by `benchmarks/steered_digits.py`.",
        "",
        "| method | the judge agrees | mean reward, nats | distinct | error of the mean | ESS | s a run |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *steering_rows(tallies, truth),
        "",
        f"Best of {BEST} returns {N // BEST} images a run, the others {N}.",
        "",
        "## The log normaliser: the log-probability of the class among the model's images",
        "",
        "| digit | method | unsteered images | log of the mean estimate | spread of runs | their se | within 2 se |",
        "|---:|---|---:|---:|---:|---:|---:|",
        *normaliser_rows(tallies, truth),
        "",
        "## Measurements, with the exact denoiser of the data",
        "",
        textwrap.fill(
            f"The upper half of an image in noise of 1, and a blurred image in noise of 0.8 (pixels from -1 to 1): "
            f"{arguments.measurements} measurements each, 512 particles, 40 steps. Bayes' rule over the 1,797 images "
            "is exact. Means over measurements.",
            110,
        ),
        "",
        f"| | {' | '.join(bayes)} |",
        "|---|" + "---:|" * len(bayes),
        *bayes_rows(bayes),
        "",
        "## Measurements, with the trained denoiser",
        "",
        textwrap.fill(
            f"{arguments.truths} images of the model, each measured and inferred from {N} particles and {STEPS} steps: "
            "how often the central half and the central nine tenths of the draws hold the true pixel.",
            110,
        ),
        "",
        "| measured | method | 50 % | 90 % | error of the posterior mean | ESS |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {method} | {100 * v['50']:.1f} ± {100 * v['50 se']:.1f} % "
            f"| {100 * v['90']:.1f} ± {100 * v['90 se']:.1f} % | {v['error']:.3f} ± {v['error se']:.3f} "
            f"| {v['ess']:.0f} |"
            for (name, method), v in covered.items()
        ),
    ]
    RESULT.write_text("\n".join(out) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
