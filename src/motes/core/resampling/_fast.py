"""The long loops of `_grid.py` and `ssp.py` in numba: same integers, no temporary vectors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

SMALL = 16_384
"""Up to this length plain tensors are as fast, and nobody waits for a compiler."""
PART = 1 << 18
"""The least that is worth a thread of its own."""
PRESENT = find_spec("numba") is not None


def suits(x: Tensor) -> bool:
    """Whether the fast route is there for a vector like this."""
    return PRESENT and len(x) > SMALL and x.device.type == "cpu"


def _loops() -> ModuleType:
    from motes.core.resampling import _loops

    return _loops


def _parts(n: int) -> list[tuple[int, int]]:
    """0..n cut into parts, one a thread. Results do not depend on the cuts: everything is a sum of integers."""
    pieces = max(1, min(torch.get_num_threads(), n // PART))
    return [(n * k // pieces, n * (k + 1) // pieces) for k in range(pieces)]


def _map(f: Callable[[int, int], int | None], parts: list[tuple[int, int]]) -> list[int | None]:
    """f on each part, at the same time; threads live as long as this call, so that a fork finds none."""
    if len(parts) == 1:
        return [f(*parts[0])]
    with ThreadPoolExecutor(len(parts) - 1) as pool:
        others = [pool.submit(f, *part) for part in parts[1:]]
        return [f(*parts[0]), *(other.result() for other in others)]


def ends(log_weight: Tensor, top: float, share_bits: int, line: int) -> Tensor:
    loops, w = _loops(), log_weight.contiguous().numpy()
    out = torch.empty(len(w), dtype=torch.int64)
    sums, parts = out.numpy(), _parts(len(w))
    scale = float(1 << share_bits)
    totals = _map(lambda a, b: loops.shares(w, top, scale, a, b, sums), parts)
    all_shares = sum(totals)
    before = dict(zip(parts, (sum(totals[:k]) for k in range(len(parts))), strict=True))
    ratio = float(line) / float(all_shares)
    _map(lambda a, b: loops.rescale(sums, before[a, b], all_shares, ratio, line, a, b), parts)
    return out


def lattice(end: Tensor, offset: Tensor, n: int, bits: int) -> Tensor:
    loops, e, o = _loops(), end.numpy(), offset.reshape(-1).numpy()
    out = torch.empty(n, dtype=torch.int64)
    to = out.numpy()
    _map(lambda a, b: loops.lattice(e, o, bits, a, b, to), _parts(len(e)))
    return out


def owners(end: Tensor, place: Tensor, bits: int) -> Tensor:
    loops, e, p = _loops(), end.numpy(), place.numpy()
    guide = lattice(end, torch.zeros(1, dtype=torch.int64), int(end[-1] >> bits), bits).numpy()
    out = torch.empty(len(p), dtype=torch.int64)
    to = out.numpy()
    _map(lambda a, b: loops.owners(e, guide, p, bits, a, b, to), _parts(len(p)))
    return out


def expand(count: Tensor) -> Tensor:
    out = torch.empty(int(count.sum()), dtype=torch.int64)
    _loops().expand(count.numpy(), out.numpy())
    return out


def pivot(part: Tensor, u: Tensor, bits: int) -> Tensor:
    up = torch.zeros(len(part), dtype=torch.int64)
    _loops().pivot(part.numpy(), u.numpy(), bits, up.numpy())
    return up
