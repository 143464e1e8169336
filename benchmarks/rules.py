"""Chains of decoding rules beside transformers' own processors: 32 rows of 49152 logits, in one run.

Both start from float32 logits and end with what a token is drawn from. motes works in float64 and also gives the mass
that was kept. Contenders run in turn, again and again; the table has medians of wall time, one thread.

Usage: python benchmarks/rules.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

from motes.language import Rule, rules
from motes.rng import Rng

torch.set_num_threads(1)
ROWS, VOCABULARY = 32, 49152
RESULT = Path(__file__).parent / "results" / "rules.md"
LAWS = {"sharp": 4.0, "flat": 1.5}
CHAINS = {
    "temperature": ((rules.temperature(0.8),), (theirs.TemperatureLogitsWarper(0.8),)),
    "+ top-k": ((rules.top_k(50),), (theirs.TopKLogitsWarper(50),)),
    "+ nucleus": ((rules.nucleus(0.9),), (theirs.TopPLogitsWarper(0.9),)),
    "+ min-p": ((rules.min_p(0.05),), (theirs.MinPLogitsWarper(0.05),)),
    "+ typical": ((rules.typical(0.9),), (theirs.TypicalLogitsWarper(0.9),)),
}
Job = Callable[[], object]


def logits(scale: float) -> Tensor:
    """Rows of Gaussian logits with this standard deviation, float32."""
    return (scale * Rng(1).at("bench").normal((ROWS, VOCABULARY))).float()


def ours(chain: Sequence[Rule], given: Tensor, dtype: torch.dtype) -> Job:
    def job() -> tuple[Tensor, Tensor]:
        log_prob = torch.log_softmax(given.to(dtype), -1)
        kept = torch.zeros(len(given), dtype=dtype)
        for rule in chain:
            log_prob, mass = rule(log_prob)
            kept = kept + mass
        return log_prob, kept

    return job


def peers(chain: Sequence[theirs.LogitsProcessor], given: Tensor) -> Job:
    ids = torch.zeros(ROWS, 1, dtype=torch.int64)

    def job() -> Tensor:
        scores = given
        for processor in chain:
            scores = processor(ids, scores)  # pyright: ignore[reportArgumentType]
        return torch.softmax(scores, -1)

    return job


def chains() -> dict[str, tuple[list[Rule], list[theirs.LogitsProcessor]]]:
    """Temperature alone, temperature with each truncation, and all of them."""
    temperature = CHAINS["temperature"]
    out = {
        name: ([*temperature[0], *a], [*temperature[1], *b]) if name[0] == "+" else (list(a), list(b))
        for name, (a, b) in CHAINS.items()
    }
    out["all"] = ([r for a, _ in CHAINS.values() for r in a], [p for _, b in CHAINS.values() for p in b])
    return out


def measure(jobs: dict[tuple[str, str], Job], rounds: int) -> dict[tuple[str, str], float]:
    """Median seconds of each, taken in turn."""
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    lines = [
        "# Chains of decoding rules",
        "",
        f"{ROWS} rows of {VOCABULARY} Gaussian float32 logits, from logits to what is drawn from. Milliseconds of",
        f"wall time, medians of {rounds} interleaved rounds, one thread. motes works in float64 and gives the kept",
        "mass; the float32 column is the same rules on float32 rows, to compare. Made by `benchmarks/rules.py`.",
    ]
    for law, scale in LAWS.items():
        given, jobs = logits(scale), {}
        for name, (mine, others) in chains().items():
            jobs[name, "motes"] = ours(mine, given, torch.float64)
            jobs[name, "float32"] = ours(mine, given, torch.float32)
            jobs[name, "transformers"] = peers(others, given)
        found = measure(jobs, rounds)
        p = torch.softmax(given.double() / 0.8, -1).sort(descending=True).values
        size = float((p.cumsum(-1) < 0.9).sum(-1).double().mean()) + 1
        lines += ["", f"## A {law} law: standard deviation {scale:g}, a nucleus of {size:.0f} tokens on average", ""]
        lines += [
            "| chain | motes | motes in float32 | transformers | transformers / motes |",
            "|---|---:|---:|---:|---:|",
        ]
        for name in chains():
            a, b, c = (found[name, who] * 1e3 for who in ("motes", "float32", "transformers"))
            lines.append(f"| {name} | {a:.1f} | {b:.1f} | {c:.1f} | {c / a:.1f} |")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
