"""Random numbers by address: words and normals a second, beside torch.randn and NumPy's Philox.

All contenders run in turn, again and again, on one thread, and the table has medians of the thread's CPU time and
ratios of those, so that other work on the machine matters little. Memory is new for every draw, as in use.
torch and NumPy draw from a stream, so they do not do the same job: they are there to say what an address costs.
Usage: python benchmarks/rng.py [--rounds 25] [--no-compile]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from motes.rng import Rng
from motes.rng import normal as normal_module
from motes.rng.philox import philox4x32
from motes.rng.uniform import uniform64

torch.set_num_threads(1)
SHAPE = (1 << 17, 8)
N = SHAPE[0] * SHAPE[1]
RESULT = Path(__file__).parent / "results" / "rng.md"
Draw = Callable[[], object]


def contenders() -> dict[str, dict[str, Draw]]:
    """What is measured: by table, by name, a function that makes N words or numbers."""
    reference, numba = (Rng(1, route=route).at("bench") for route in ("reference", "numba"))
    others = {g: Rng(1, route="numba", generator=g) for g in ("threefry2x32-20", "squares64")}
    stream, raw = np.random.Generator(np.random.Philox(1)), np.random.Philox(1)
    generator = torch.Generator().manual_seed(1)
    f32 = torch.float32
    return {
        "32-bit words": {
            "motes reference": lambda: reference.bits(SHAPE),
            "motes numba, Philox4x32-10": lambda: numba.bits(SHAPE),
            "motes numba, Threefry2x32-20": lambda: others["threefry2x32-20"].bits(SHAPE),
            "motes numba, Squares64": lambda: others["squares64"].bits(SHAPE),
            "NumPy Philox4x64-10": lambda: raw.random_raw(N // 2),
            "torch.randint": lambda: torch.randint(0, 2**32, SHAPE, generator=generator),
        },
        "uniforms, float64": {
            "motes reference": lambda: reference.uniform(SHAPE),
            "motes numba": lambda: numba.uniform(SHAPE),
            "NumPy Philox": lambda: stream.random(SHAPE),
            "torch.rand": lambda: torch.rand(SHAPE, dtype=torch.float64, generator=generator),
        },
        "normals, float64": {
            "motes reference": lambda: reference.normal(SHAPE),
            "motes numba": lambda: numba.normal(SHAPE),
            "motes numba, one a particle": lambda: numba.normal((N,)),
            "NumPy Philox": lambda: stream.standard_normal(SHAPE),
            "torch.randn": lambda: torch.randn(SHAPE, dtype=torch.float64, generator=generator),
        },
        "normals, float32": {
            "motes reference": lambda: reference.normal(SHAPE, f32),
            "motes numba": lambda: numba.normal(SHAPE, f32),
            "NumPy Philox": lambda: stream.standard_normal(SHAPE, dtype=np.float32),
            "torch.randn": lambda: torch.randn(SHAPE, dtype=f32, generator=generator),
        },
    }


def compiled_normals() -> tuple[Draw, float, float]:
    """The reference's arithmetic under torch.compile: a function, the seconds to compile, how many bits differ."""

    def graph(block: torch.Tensor, particle: torch.Tensor, c2: torch.Tensor, key: tuple[int, int]) -> torch.Tensor:
        words = philox4x32((block, particle, c2, c2), key)
        u = torch.stack([uniform64(words[0], words[1]), uniform64(words[2], words[3])], -1)
        return normal_module.normal64(u)

    rng = Rng(1, route="reference").at("bench")
    key = rng._key("normal")
    particle = torch.arange(SHAPE[0]).repeat_interleave(SHAPE[1] // 2)
    block = torch.arange(SHAPE[1] // 2).repeat(SHAPE[0])
    zero = torch.zeros_like(block)
    # the reference's square root leaves torch; in a graph torch's own is the processor's
    kept, normal_module.sqrt = normal_module.sqrt, torch.sqrt
    try:
        with tempfile.TemporaryDirectory() as folder:  # no compiled code of an earlier run
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            run = torch.compile(graph)
            start = time.perf_counter()
            first = run(block, particle, zero, key)
            seconds = time.perf_counter() - start
    finally:
        normal_module.sqrt = kept
    wrong = float((first.reshape(SHAPE) != rng.normal(SHAPE)).double().mean())
    return lambda: run(block, particle, zero, key), seconds, wrong


def measure(draws: dict[str, Draw], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for draw in draws.values():
        draw()
    for _ in range(rounds):
        for name, draw in draws.items():
            start = time.thread_time()
            draw()
            seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


STARTING = """
import time
import torch
from motes.rng import Rng
start = time.perf_counter()
Rng(1, route="numba").normal((1000,))
print(time.perf_counter() - start)
"""


def starting() -> tuple[float, float]:
    """Seconds from `import motes.rng` to the first compiled normals: on a new machine, and with the cache it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        first, second, third = (
            float(subprocess.run([sys.executable, "-c", STARTING], env=environment, capture_output=True).stdout)
            for _ in range(3)
        )
    return first, min(second, third)


def small(rounds: int) -> dict[str, float]:
    """Median seconds of a draw of 100 normals."""
    reference, numba = (Rng(1, route=route) for route in ("reference", "numba"))
    return measure(
        {
            "motes reference": lambda: reference.at("x", step=3).normal((100,)),
            "motes numba": lambda: numba.at("x", step=3).normal((100,)),
            "torch.randn": lambda: torch.randn(100, dtype=torch.float64),
        },
        rounds * 20,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    options = parser.parse_args()
    tables = contenders()
    compiled = None if options.no_compile else compiled_normals()
    if compiled:
        tables["normals, float64"]["the reference under torch.compile"] = compiled[0]
    lines = [
        "# Random numbers by address",
        "",
        f"Shape {SHAPE}, one thread, torch {torch.__version__.split('+')[0]}, NumPy {np.__version__}; medians of the",
        f"CPU time of {options.rounds} interleaved rounds. Made by `benchmarks/rng.py`.",
        "",
    ]
    for title, draws in tables.items():
        found = measure(draws, options.rounds)
        base = found["motes reference"]
        peer = next(s for name, s in found.items() if name.startswith("torch."))
        lines += [f"| {title} | million/s | times the reference | times torch |", "|---|---:|---:|---:|"]
        for name, s in found.items():
            lines.append(f"| {name} | {N / s / 1e6:.1f} | {base / s:.1f} | {peer / s:.2f} |")
        lines.append("")
    lines += ["| 100 normals, address included | CPU microseconds |", "|---|---:|"]
    lines += [f"| {name} | {s * 1e6:.0f} |" for name, s in small(options.rounds).items()]
    first, cached = starting()
    lines += ["", "| from nothing to the first compiled normals | seconds |", "|---|---:|"]
    lines += [f"| numba, a new machine | {first:.1f} |", f"| numba, once its cache is there | {cached:.1f} |"]
    if compiled:
        lines.append(f"| torch.compile | {compiled[1]:.1f} |")
        lines += ["", f"Under torch.compile {100 * compiled[2]:.3g} % of the normals differ from the reference's."]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
