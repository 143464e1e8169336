"""Speculation: calls and seconds a token of SmolLM2, and how near schemes for several drafts come to the best rate.

One text and eight, behind a prompt that is to be copied and behind a free one; the same seeds with and without
speculation, so the same texts. Times are CPU time on one thread, contenders in turn, medians over the rounds.
Usage: python benchmarks/speculation.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch

import motes
from motes import language
from motes.language.speculation import PromptLookup, optimal, recursive, sequential, speculating

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
RESULT = Path(__file__).parent / "results" / "speculation.md"
NEW = 64
LIST = """Stock of the shop on Monday: 12 brass hinges, 40 oak pegs, 7 tins of green paint, 3 coils of hemp rope,
25 window latches, 18 door handles, 60 copper nails, 9 sheets of sandpaper, 2 ladders, 14 paint brushes.
"""
TASKS = {
    "copying": LIST * 2 + "Stock of the shop on Monday: 12 brass",
    "free": "The ferry left the island at half past six, an hour late, because the fog had not lifted. On board",
}


class Counted:
    """A method that is counted."""

    def __init__(self, method: Any):
        self.method, self.calls = method, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.method(*args, **kwargs)


def once(model: Any, inner: Any, prompt: str, n: int, seed: int) -> tuple[list[str], int, int, float]:
    """The texts, their tokens, the calls of the model and the CPU seconds."""
    forward = inner.model.forward
    inner.model.forward = counted = Counted(forward)
    rules = (language.temperature(0.7),)
    job = language.Generation(model, prompt, rules=rules, max_tokens=NEW, chat=False, globalise=False)
    start = time.process_time()
    try:
        run = motes.sample(job, n, seed=seed, progress=False)
    finally:
        inner.model.forward = forward
    seconds = time.process_time() - start
    return run.texts, int(run.particles.x["length"].sum()), counted.calls, seconds


def texts(rounds: int) -> list[str]:
    model = language.load("smollm2")
    lines = [
        "## Calls and seconds a token",
        "",
        *wrapped(
            f"SmolLM2-135M-Instruct in float32 on {torch.get_num_threads()} CPU thread, temperature 0.7, at most {NEW} "
            f"new tokens, the prompt's call and seconds included. Guesses are `PromptLookup()`, at most 4 a call. "
            f"{rounds} interleaved rounds, a seed each: totals of tokens and calls, medians of CPU time. A token is "
            "one of one text: eight texts take one call for up to eight tokens."
        ),
        "",
        "| task | texts | | calls a token | ms a token | guesses that were right | times as fast |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    differ = total = 0
    for (task, prompt), n in ((t, n) for t in TASKS.items() for n in (1, 8)):
        quick = speculating(model, draft=PromptLookup())
        once(quick, model, prompt, n, rounds)
        quick.counts.update(calls=0, guessed=0, right=0)
        rows: dict[str, list[Any]] = {"plain": [], "speculating": []}
        for seed in range(rounds):
            for name, contender in (("plain", model), ("speculating", quick)):
                rows[name].append(once(contender, model, prompt, n, seed))
            pairs = zip(rows["plain"][-1][0], rows["speculating"][-1][0], strict=True)
            differ += sum(a != b for a, b in pairs)
            total += n
        each = {name: statistics.median(r[3] / r[1] for r in found) for name, found in rows.items()}
        for name, found in rows.items():
            calls = sum(r[2] for r in found) / sum(r[1] for r in found)
            right = "" if name == "plain" else f"{quick.counts['right'] / max(quick.counts['guessed'], 1):.0%}"
            speed = "" if name == "plain" else f"**{each['plain'] / each['speculating']:.2f}**"
            lines.append(f"| {task} | {n} | {name} | {calls:.2f} | {each[name] * 1e3:.1f} | {right} | {speed} |")
            print(lines[-1], flush=True)
    return [
        *lines,
        "",
        f"{differ} of {total} texts differ from those without speculation (rounding of the logits).",
        "",
    ]


def rates(laws: int) -> list[str]:
    lines = [
        "## Several drafts of one token",
        "",
        *wrapped(
            f"Mean acceptance over {laws} pairs of random laws of 1,000 tokens: logits are normal with standard "
            "deviation 3, and those of the draft have normal noise added; the first column is the standard deviation "
            "of the noise. k independent drafts; `optimal.select` attains the bound `optimal.rate`, which the tests "
            "check by enumeration."
        ),
        "",
        "| noise | k | one draft | k-SEQ | recursive | optimal |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for noise in (0.5, 1.0, 2.0):
        rng = motes.Rng(1).at(f"laws-{noise}")
        logits = 3 * rng.at("model").normal((laws, 1000)).double()
        p = logits.softmax(1)
        q = (logits + noise * rng.at("draft").normal((laws, 1000)).double()).softmax(1)
        for k in (2, 4, 8):
            found = [optimal.rate(p, q, 1), *(m.rate(p, q, k) for m in (sequential, recursive, optimal))]
            picked = torch.minimum(p, optimal.picked(p, q, k)).sum(1)
            assert float((picked - found[-1]).abs().max()) < 1e-12
            assert all(bool((rate <= found[-1] + 1e-12).all()) for rate in found)
            lines.append(f"| {noise} | {k} | " + " | ".join(f"{float(rate.mean()):.3f}" for rate in found) + " |")
    lines += [
        "",
        "Seconds to find the cuts of one pair of laws (4 drafts, noise 1):",
        "",
        "| tokens | ms |",
        "|---:|---:|",
    ]
    for V in (1000, 10_000, 49_152):
        rng = motes.Rng(2).at(f"size-{V}")
        logits = 3 * rng.at("model").normal((9, V)).double()
        p, q = logits.softmax(1), (logits + rng.at("draft").normal((9, V)).double()).softmax(1)
        seconds = []
        for a, b in zip(p, q, strict=True):
            start = time.process_time()
            optimal.cuts(optimal.picked(a, b, 4) / b, b, 4)
            seconds.append(time.process_time() - start)
        lines.append(f"| {V:,} | {statistics.median(seconds) * 1e3:.1f} |")
    return lines


def wrapped(text: str) -> list[str]:
    """Lines of a result file."""
    return textwrap.wrap(text, 110, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--laws", type=int, default=200)
    args = parser.parse_args()
    lines = [
        "# Speculation",
        "",
        f"PyTorch {torch.__version__}. Made by `benchmarks/speculation.py`.",
        "",
        *texts(args.rounds),
        *rates(args.laws),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
