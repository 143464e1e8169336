"""Steering: what it costs besides the networks, and reward and time beside the reference code of others.

Overhead: 64 particles of 28 x 28 with the U-Net and the classifier of clothes that come with the package. The time of
a run less that of the networks (calls and backward passes) is motes' own.

Peers: each gets the same denoiser of digits, reward, times and number of particles, and asks the denoiser for as many
rows. The rounds are interleaved, each with its own seed; the table has the medians of the CPU seconds. The reward is
that of the images as the user gets them, weighted where there are weights; its right value is that of the tilted law,
from a run of motes with many particles, which also gives the log normaliser.

Usage: python benchmarks/steering.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch
from torch import Tensor

import motes
from motes.diffusion import DIGITS_SHAPE, FASHION_SHAPE, AdaptiveReward, Denoiser, Guided, guidance, load
from motes.errors import MotesWarning, NanLogPotential

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._steering_peers import Peer, Task, azula, fk_steering, twisted

torch.set_num_threads(1)
warnings.simplefilter("ignore", MotesWarning)  # that raw guidance is biased
RESULT = Path(__file__).parent / "results" / "steering.md"
N, STEPS, CLASS = 64, 40, 3


class Meter:
    """Networks whose CPU time, backward passes included, and rows are counted."""

    def __init__(self):
        self.seconds, self.rows = 0.0, 0
        self.gradient = torch.autograd.grad
        torch.autograd.grad = self.timed(self.gradient)  # type: ignore[assignment]

    def timed(self, f: Callable, rows: bool = False) -> Callable:
        def call(*args, **kwargs):
            begin = time.process_time()
            out = f(*args, **kwargs)
            self.seconds += time.process_time() - begin
            self.rows += len(args[0]) if rows else 0
            return out

        return call

    def measure(self, job: Callable):
        """What the job returns, its seconds, those outside of the networks, and the rows that it asked for."""
        self.seconds, self.rows = 0.0, 0
        begin = time.process_time()
        out = job()
        spent = time.process_time() - begin
        return out, spent, spent - self.seconds, self.rows


def warm() -> None:
    """The compiled random numbers, loaded once a process (0.6 s)."""
    motes.Rng(0, route="numba").normal((N, 784), dtype=torch.float32)
    motes.rng.routes._spent = math.inf


# ---------------------------------------------------------------- overhead


def overhead(meter: Meter, rounds: int, steps: int = 20) -> list[str]:
    shipped, classifier = load("fashion"), load("fashion-classifier")
    process = shipped.process
    model = Denoiser(meter.timed(shipped.model, True), process, predicts="velocity")
    label = meter.timed(lambda x: classifier(x)[:, CLASS])
    shape, all_ = FASHION_SHAPE, (model, steps)
    samplers = {
        "`ReverseDiffusion`, weights alone": motes.ReverseDiffusion(*all_, reward=label, shape=shape),
        '`ReverseDiffusion`, `"reward"`': motes.ReverseDiffusion(*all_, reward=label, guidance="reward", shape=shape),
        "`ReverseDiffusion`, `manifold_preserving`": motes.ReverseDiffusion(
            *all_, reward=label, guidance=guidance.manifold_preserving(0.5), shape=shape
        ),
        "`AdaptiveReward`": AdaptiveReward(model, steps, reward=label, shape=shape),
        '`Guided`, `"reward"`': Guided(model, steps, guidance="reward", reward=label, shape=shape),
        "`Guided`, no guidance": Guided(model, steps, shape=shape),
    }
    found: dict[str, list] = {name: [] for name in samplers}
    for seed in range(rounds + 1):
        for name, sampler in samplers.items():
            row = meter.measure(lambda s=sampler, seed=seed: motes.sample(s, N, seed=seed, progress=False))[1:]
            if seed:  # the first round warms up
                found[name].append(row)
    out = [
        f"## Overhead: {N} particles of 28 x 28, {steps} steps",
        "",
        "Everything but the calls of the denoiser and the reward and their backward passes, with checks that all is",
        "finite, diagnostics and genealogy. Random numbers are compiled (`motes[fast]`), and loaded beforehand.",
        "",
        "| sampler | seconds | of these, motes | share | rows asked |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        total, own = statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows)
        share = statistics.median(r[1] / r[0] for r in rows)
        out.append(f"| {name} | {total:.2f} | {own:.3f} | {100 * share:.1f} % | {rows[0][2]} = {steps + 1} x {N} |")
    return [*out, ""]


# ---------------------------------------------------------------- peers


def ours(model, task: Task, **knobs) -> Peer:
    def run(seed: int) -> tuple[Tensor, Tensor, float]:
        run = motes.sample(model, task.n, seed=seed, progress=False, **knobs)
        return run.view, run.log_weight, run.log_evidence

    return run


def compare(meter: Meter, task: Task, pair: dict[str, Peer], rounds: int, score: Callable) -> dict[str, dict]:
    """Interleaved rounds, the order turned around each time."""
    found = {name: {"seconds": [], "score": [], "z": [], "rows": 0} for name in pair}
    for seed in range(rounds + 1):
        for name in list(pair)[:: 1 if seed % 2 else -1]:
            (images, log_weight, z), spent, _, rows = meter.measure(lambda r=pair[name], seed=seed: r(seed))
            if not seed:
                continue
            with torch.no_grad():
                value = score(images).double()
            w = torch.full((len(value),), 1 / len(value)) if log_weight is None else torch.softmax(log_weight, 0)
            cell = found[name]
            cell["seconds"].append(spent)
            cell["score"].append(float((w * value).sum()))
            cell["rows"] = rows
            if z is not None:
                cell["z"].append(z)
    return found


def table(found: dict[str, dict], what: str, z: float | None, peer: str) -> list[str]:
    head = ["", what, "its error", "seconds", "rows asked"] + ([] if z is None else ["log normaliser, r.m.s. error"])
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, cell in found.items():
        mean, error = statistics.mean(cell["score"]), statistics.stdev(cell["score"]) / math.sqrt(len(cell["score"]))
        row = [name, f"{mean:.3f}", f"{error:.3f}", f"{statistics.median(cell['seconds']):.3f}", str(cell["rows"])]
        if z is not None:
            rms = [math.sqrt(statistics.mean((v - z) ** 2 for v in cell["z"]))] if cell["z"] else []
            row.append(f"{rms[0]:.3f}" if rms else "none")
        out.append("| " + " | ".join(row) + " |")
    mine, theirs = (statistics.median(found[name]["seconds"]) for name in ("motes", peer))
    return [*out, "", f"Time, motes / {peer}: **{mine / theirs:.2f}**.", ""]


def peers(meter: Meter, rounds: int) -> list[str]:
    shipped, classifier = load("digits"), load("digits-classifier")
    process, shape = shipped.process, DIGITS_SHAPE
    model = Denoiser(meter.timed(shipped.model, True), process, predicts="velocity")
    reward = lambda x: classifier(x)[:, CLASS]  # noqa: E731
    task = Task(model, reward, STEPS, N, shape)
    fixed = {"shape": shape, "schedule": "constant"}

    def made(steps: int, guide, **knobs) -> motes.ReverseDiffusion:
        return motes.ReverseDiffusion(model, steps, reward=reward, guidance=guide, **{**fixed, **knobs})

    def truth(steps: int, final: str) -> tuple[float, float]:
        big = [motes.sample(made(steps, 0.5, final=final), 4096, seed=s, progress=False) for s in (901, 902)]
        w = torch.cat([b.log_weight for b in big])
        with torch.no_grad():
            value = reward(torch.cat([b.view for b in big])).double()
        return float((torch.softmax(w, 0) * value).sum()), float(w.logsumexp(0) - math.log(len(w)))

    right = {final: truth(STEPS - (final == "denoised"), final) for final in ("denoised", "state")}
    state, denoised = {"final": "state"}, {"final": "denoised"}
    rivals = [
        ("FK steering, difference", fk_steering(task, "diff"), made(STEPS, None, **state), "state"),
        ("FK steering, max", fk_steering(task, "max"), made(STEPS, None, potential="max", **state), "state"),
        ("twisted diffusion sampler", twisted(task), made(STEPS - 1, 0.5, **denoised), "denoised"),
        ("azula's TDS", azula(task, "tds"), made(STEPS, 0.5, **state), "state"),
    ]
    out = [
        f"## Beside others: {N} digits of 8 x 8, {STEPS} times, reward log p({CLASS} | image)",
        "",
        f"Medians and means of {rounds} interleaved rounds. The tilted law's own mean reward is "
        f"{right['state'][0]:.3f} for the last state as",
        f"image and {right['denoised'][0]:.3f} for the denoised prediction; less is short of the reward, much more "
        "would be another law.",
        "",
    ]
    for peer, theirs, sampler, final in rivals:
        out += [f"### {peer}", ""]
        if isinstance(theirs, str):
            out += [f"Skipped: {theirs}.", ""]
            continue
        found = compare(meter, task, {"motes": ours(sampler, task), peer: theirs}, rounds, reward)
        out += table(found, "mean reward", right[final][1], peer)
        print("\n".join(out[-8:]), flush=True)

    out += ["### azula's DDPM, unguided", ""]
    theirs = azula(task, "ddpm")
    if isinstance(theirs, str):
        return [*out, f"Skipped: {theirs}.", ""]
    plain = ours(Guided(model, STEPS, shape=shape, final="state"), task)
    found = compare(meter, task, {"motes": plain, "azula's DDPM": theirs}, rounds, reward)
    out += table(found, "mean reward", None, "azula's DDPM")

    truth_, operator = torch.zeros(1, 8, 4), lambda x: x[..., :4]
    truth_ = operator(motes.sample(Guided(shipped, 100, shape=shape), 1, seed=77, progress=False).view)[0]
    error = lambda x: -(operator(x) - truth_).square().flatten(1).mean(1).sqrt()  # noqa: E731
    likelihood = lambda x: -0.5 * (operator(x) - truth_).square().flatten(1).sum(1) / 0.1**2  # noqa: E731
    best = best_of_knobs(meter, task, likelihood, error, truth_, operator)
    found = compare(meter, task, best, rounds, error)
    out += ["### azula's DPS: the left half of a digit, raw guidance, the best strength of each of a grid", ""]
    return out + table(found, "minus r.m.s. misfit", None, "azula's DPS")


def best_of_knobs(meter: Meter, task: Task, likelihood, error, y: Tensor, operator) -> dict[str, Peer]:
    """Both samplers with the strength, of powers of two, whose misfit in two rounds is least."""

    def ours_(rho: float) -> Peer:
        guide = guidance.diffusion_posterior(rho)
        return ours(
            Guided(task.denoiser, task.steps, guidance=guide, reward=likelihood, shape=task.shape, final="state"), task
        )

    grids = {
        "motes": {r: ours_(r) for r in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)},
        "azula's DPS": {z: azula(task, "dps", (y, operator, z)) for z in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
    }
    best = {}
    for name, grid in grids.items():
        misfit = {}
        for knob, sampler in grid.items():
            try:
                misfit[knob] = statistics.mean(float(error(sampler(seed)[0]).mean()) for seed in (501, 502))
            except NanLogPotential:
                continue
            if not math.isfinite(misfit[knob]):
                del misfit[knob]
        best[name] = grid[max(misfit, key=misfit.__getitem__)]
        print(name, misfit, flush=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    meter = Meter()
    warm()
    out = [
        "# Steering",
        "",
        "Written by `python benchmarks/steering.py`; CPU seconds of one thread.",
        "",
        *overhead(meter, rounds),
        *peers(meter, rounds),
    ]
    RESULT.write_text("\n".join(out))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
