"""The fast route on the CPU: compiled loops, in as many threads as torch uses; needs numba.

Measured against torch.compile in benchmarks/rng.py: the loops compile in 4 s once per machine instead of 20 to 40 s
per process, their bits are the reference's (a compiled graph may contract a product and a sum), and small draws
cost microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from motes.errors import MotesError
from motes.rng.generators import Generator

from . import kernels

name = "numba"
CHUNK = 4096  # quads worked on at once: their words and numbers stay in the second-level cache
WORTH_A_THREAD = 1 << 15

FILL = {
    "philox4x32-10": kernels.philox,
    "threefry2x32-20": kernels.threefry,
    "squares32": kernels.squares32,
    "squares64": kernels.squares64,
}
NUMBERS = {
    "uniform": kernels.UNIFORM,
    "normal": kernels.NORMAL,
    "exponential": kernels.EXPONENTIAL,
    "gumbel": kernels.GUMBEL,
}


def words(
    generator: Generator, key: tuple[int, int], particle: Tensor, first: Tensor, count: int, step: int, inner: int
) -> Tensor:
    """As in the reference route, for quads: `count` is 4 and `first` a multiple of 4 for each particle."""
    if count != 4:
        raise MotesError(f"this route gives four words at a time, not {count}")
    found = np.empty((4, particle.shape[0]), np.uint64)
    quad = (first // 4).numpy().view(np.uint64)
    address = (np.uint64(step), np.uint64(inner), np.uint64(key[0] | key[1] << 32))
    FILL[generator.name](particle.numpy().view(np.uint64), quad, *address, found)
    return torch.from_numpy(found.view(np.int64)).T


def draw(
    generator: Generator,
    what: str,
    key: tuple[int, int],
    particle: Tensor,
    count: int,
    step: int,
    inner: int,
    dtype: torch.dtype,
) -> Tensor:
    """Draws 0..count-1 of each particle, (n, count), as in the reference route."""
    out = torch.empty((particle.shape[0], count), dtype=dtype)
    flat, ids = out.numpy().reshape(-1), particle.numpy()
    per_row = -(-count // (4 if what == "bits" else 2))
    code = kernels.UNIFORM32 if what == "uniform" and dtype == torch.float32 else NUMBERS.get(what, -1)
    fill = FILL[generator.name]
    address = (np.uint64(step), np.uint64(inner), np.uint64(key[0] | key[1] << 32))

    def work(start: int, stop: int) -> None:
        size = min(CHUNK, stop - start)
        where, words = np.empty((2, size), np.uint64), np.empty((4, size), np.uint64)
        u = np.empty((2, size), np.float64)
        for at in range(start, stop, CHUNK):
            if (n := stop - at) < size:
                where, words, u = where[:, :n], words[:, :n], u[:, :n]
            kernels.spread(ids, per_row, at, where[0], where[1])
            fill(where[0], where[1], *address, words)
            if what == "bits":
                kernels.store_bits(words, at, per_row, count, flat)
                continue
            for slot in range(min(count, 2)):
                kernels.numbers(code, words[2 * slot], words[2 * slot + 1], u[slot])
            kernels.store_numbers(u, at, per_row, count, flat)

    _in_threads(work, particle.shape[0] * per_row)
    return out


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _in_threads(work: Callable[[int, int], None], total: int) -> None:
    """Run work(start, stop) over 0..total; how it is cut changes nothing, since every number has its own address."""
    threads = min(torch.get_num_threads(), total // WORTH_A_THREAD)
    if threads < 2:
        return work(0, total)
    key = (os.getpid(), threads)  # a forked child inherits the object, but none of its threads
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="motes-rng")
    # several pieces a thread, so that a slow core does not hold up the rest
    step = -(-total // (4 * threads) // CHUNK) * CHUNK
    for done in [_pools[key].submit(work, a, min(a + step, total)) for a in range(0, total, step)]:
        done.result()
    return None
