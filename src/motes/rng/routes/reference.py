"""The normative route: plain int64 and float64 tensors on any device, a few operations at a time, no compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.rng.elementary import log
from motes.rng.generators import Generator
from motes.rng.normal import normal64
from motes.rng.uniform import uniform32, uniform64

name = "reference"
PIECE = 1 << 16  # blocks worked on at once: the temporaries then stay in the cache


def words(
    generator: Generator, key: tuple[int, int], particle: Tensor, first: Tensor, count: int, step: int, inner: int
) -> Tensor:
    """`count` consecutive words (..., count) of each particle, from word `first` (a multiple of 4; they broadcast)."""
    size = generator.words
    blocks = -(-count // size)
    block = first.unsqueeze(-1) // size + torch.arange(blocks, device=first.device)
    found = generator.block(key, block, particle.unsqueeze(-1), step, inner)
    return torch.stack(found, -1).flatten(-2)[..., :count]


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
    """Draws 0..count-1 of each particle, (n, count); `what` is bits, uniform, normal, exponential or gumbel."""
    out = torch.empty((particle.shape[0], count), dtype=dtype, device=particle.device)
    per_draw = 1 if what == "bits" else 2
    columns = max(4, min(count, PIECE * generator.words // per_draw) // 4 * 4)
    rows = max(1, PIECE * generator.words // (per_draw * min(columns, max(count, 1))))
    for i in range(0, out.shape[0], rows):
        for j in range(0, count, columns):
            piece = out[i : i + rows, j : j + columns]
            first = torch.tensor(j * per_draw, device=particle.device)
            w = words(generator, key, particle[i : i + rows], first, piece.shape[1] * per_draw, step, inner)
            piece.copy_(finish(what, w, dtype))
    return out


def finish(what: str, w: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn words (..., k) into bits (..., k) or into numbers (..., k / 2)."""
    if what == "bits":
        return w
    high, low = w[..., 0::2], w[..., 1::2]
    if what == "uniform" and dtype == torch.float32:
        return uniform32(high)
    u = uniform64(high, low).contiguous()
    if what == "normal":
        u = normal64(u)
    elif what == "exponential":
        u = -log(u)
    elif what == "gumbel":
        u = -log(-log(u))
    return u.to(dtype)
