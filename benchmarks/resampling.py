"""Resampling a million particles: every scheme beside `particles` (numba) and blackjax (jax.jit), in one run.

The job is the same for all: from log-weights to parents. Contenders run in turn, again and again; the table has
medians of CPU time, summed over the threads that a contender uses, so that other work on the machine matters little.
motes and `particles` count in float64, blackjax in its default float32.

`particles` 0.4 pins an old NumPy that its resampling module does not need; get it without its dependencies:
    pip install --no-deps --target build/particles particles==0.4
Usage: python benchmarks/resampling.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "build" / "particles"))
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import torch

from motes.core import ess
from motes.core.history.genealogy import Genealogy
from motes.core.resampling import _fast, schemes
from motes.rng import Rng

torch.set_num_threads(1)
N = 1_000_000
RESULT = HERE / "results" / "resampling.md"
Job = Callable[[], object]


def log_weights() -> torch.Tensor:
    """Gaussian log-weights whose effective sample size is half of N."""
    return Rng(1).at("bench").normal((N,)) * 0.8326


def random() -> Rng:
    """Numbers from the compiled route from the first call on, where it is there."""
    return Rng(1, route="numba" if _fast.PRESENT else "auto")


def motes(log_weight: torch.Tensor) -> dict[str, Job]:
    rng = random().at("resample", step=3)
    order = {"order": log_weight}
    return {name: lambda s=s: s(rng, log_weight, **(order if s.needs_order else {})) for name, s in schemes.items()}


def particles(log_weight: np.ndarray) -> dict[str, Job]:
    """`particles` takes normalised weights, by its own function."""
    try:
        from particles import resampling
    except ImportError:
        return {}
    return {
        name: lambda f=f: f(resampling.exp_and_normalise(log_weight))
        for name, f in resampling.rs_funcs.items()
        if name in schemes
    }


def blackjax(log_weight: np.ndarray) -> dict[str, Job]:
    try:
        import jax
        from blackjax.smc import resampling
    except ImportError:
        return {}
    key, w = jax.random.PRNGKey(0), jax.numpy.asarray(log_weight, dtype=jax.numpy.float32)
    found = {}
    for name in ("systematic", "stratified", "multinomial", "residual"):
        f = jax.jit(lambda k, w, f=getattr(resampling, name): f(k, jax.nn.softmax(w), N))
        found[name] = lambda f=f: f(key, w).block_until_ready()
    return found


def measure(jobs: dict[tuple[str, str], Job], rounds: int, clock: Callable[[], float]) -> dict[tuple[str, str], float]:
    """Median seconds of each, taken in turn."""
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            start = clock()
            job()
            seconds[name].append(clock() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def exactness(jobs: dict[str, dict[str, Job]]) -> list[str]:
    """How many of a million equally weighted particles have not exactly one child, under systematic resampling."""
    lines = []
    for name, by_scheme in jobs.items():
        if "systematic" in by_scheme:
            children = np.bincount(np.asarray(by_scheme["systematic"]()), minlength=N)
            lines.append(f"| {name} | {int((children != 1).sum())} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    w, even = log_weights(), torch.full((N,), -float(np.log(N)), dtype=torch.float64)
    makers = {"motes": motes, "particles": lambda w: particles(w.numpy()), "blackjax": lambda w: blackjax(w.numpy())}
    contenders = {name: make(w) for name, make in makers.items()}
    jobs = {(name, scheme): job for name, by_scheme in contenders.items() for scheme, job in by_scheme.items()}
    uniform, target = random().at("u"), torch.empty_like(w)
    parent = schemes["systematic"](uniform, w)

    def bookkeeping() -> None:
        genealogy = Genealogy.start(N)
        genealogy.after(1, parent, True, w)

    extra = {
        ("", "copy of 8 MB"): lambda: target.copy_(w),
        ("", "uniforms, two to an address"): lambda: uniform.uniform((N // 2, 2)),
        ("", "genealogy.after"): bookkeeping,
        ("", "parents gathered from 8 MB"): lambda: w[parent],
    }
    found = measure(jobs | extra, rounds, time.process_time)
    copy = found["", "copy of 8 MB"]
    lines = [
        "# Resampling a million particles",
        "",
        f"N = {N}, effective sample size {ess(w) / N:.2f} N, from log-weights to parents. CPU milliseconds of all",
        f"threads, medians of {rounds} interleaved rounds; one thread where a contender lets us choose. Made by",
        "`benchmarks/resampling.py`.",
        "",
        "| scheme | motes | particles | blackjax (float32) | particles / motes | blackjax / motes | copies of 8 MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for scheme in schemes:
        ours = found["motes", scheme]
        peers = [found.get((peer, scheme)) for peer in ("particles", "blackjax")]
        cells = ["" if s is None else f"{s * 1e3:.1f}" for s in peers]
        cells += ["" if s is None else f"{s / ours:.1f}" for s in peers]
        lines.append(f"| {scheme} | {ours * 1e3:.1f} | {' | '.join(cells)} | {ours / copy:.0f} |")
    missing = [name for name, by_scheme in contenders.items() if not by_scheme]
    if missing:
        lines += ["", f"Not installed: {', '.join(missing)}; the head of the script says how."]
    lines += ["", "| for comparison | ms |", "|---|---:|"]
    lines += [f"| {name} | {s * 1e3:.2f} |" for (_, name), s in found.items() if (_, name) in extra]
    lines += [
        "",
        f"A copy of 8 MB moves {16e-9 * N / copy:.0f} GB/s here. Systematic resampling must read and write as much,",
        f"and takes {found['motes', 'systematic'] / copy:.0f} times as long: the exponential, the exact sums and the",
        "marking of families bind it, not memory.",
        "",
        "| equal weights: particles without exactly one child | |",
        "|---|---:|",
        *exactness({name: make(even) for name, make in makers.items()}),
    ]
    if not _fast.PRESENT:
        lines += ["", "numba is not installed: these are the plain tensor routes."]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
