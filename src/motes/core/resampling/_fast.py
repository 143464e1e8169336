"""The long loops of `_grid.py` and `ssp.py` in numba: same integers, no temporary vectors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

SMALL = 16_384
"""Up to this length plain tensors are as fast, without waiting for a compiler."""
PART = 1 << 22
"""The least that is worth a thread of its own: on two shared cores a second thread gained nothing below this."""
BUCKETS = 10
"""Places are sorted by this number of leading bits before they are looked up."""
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


def _map(f: Callable[[int, int], Any], parts: list[tuple[int, int]]) -> list[Any]:
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
    totals = _map(lambda a, b: loops.shares(w[a:b], top, scale, sums[a:b]), parts)
    all_shares = sum(totals)
    before = {a: sum(totals[:k]) for k, (a, _) in enumerate(parts)}
    ratio = float(line) / float(all_shares)
    _map(lambda a, b: loops.rescale(sums[a:b], before[a], all_shares, ratio, line), parts)
    return out


def lattice(end: Tensor, offset: Tensor, n: int, bits: int) -> Tensor:
    loops, e, o = _loops(), end.numpy(), offset.reshape(-1).contiguous().numpy()
    out = torch.empty(n, dtype=torch.int64)
    to = out.numpy()

    def part(a: int, b: int) -> None:
        first, last = (loops.reach(e[k - 1], o, bits) if k else 0 for k in (a, b))
        loops.lattice(e[a:b], o, bits, a, first, to[first:last])

    _map(part, _parts(len(e)))
    return out


def tally(end: Tensor, u: Tensor, n: int, bits: int) -> Tensor:
    loops, e, v = _loops(), end.numpy(), u.contiguous().numpy()
    line, parts = n << bits, _parts(len(v))
    bucket_bits = max(bits, line.bit_length() - BUCKETS)
    out = torch.zeros((len(parts), len(e)), dtype=torch.int64)
    rows = dict(zip((a for a, _ in parts), out.numpy(), strict=True))
    _map(lambda a, b: loops.tally(e, v[a:b], line, bits, bucket_bits, rows[a]), parts)
    return out.sum(0) if len(parts) > 1 else out[0]


def expand(count: Tensor, n: int) -> Tensor:
    out = torch.empty(n, dtype=torch.int64)
    _loops().expand(count.numpy(), out.numpy())
    return out


def split(end: Tensor, bits: int) -> tuple[Tensor, Tensor, int]:
    whole, rest = torch.empty_like(end), torch.empty_like(end)
    units = _loops().split(end.numpy(), bits, whole.numpy(), rest.numpy())
    return whole, rest, int(end[-1] >> bits) - units


def spared(end: Tensor, u: Tensor) -> tuple[Tensor, int]:
    out = torch.empty_like(u)
    return out, _loops().spared(end.numpy(), u.contiguous().numpy(), out.numpy())


def replace(u: Tensor, parent: Tensor) -> Tensor:
    out = torch.empty(len(u), dtype=torch.int64)
    _loops().replace(u.numpy(), parent.numpy(), out.numpy())
    return out


def pivot(whole: Tensor, rest: Tensor, u: Tensor, bits: int) -> Tensor:
    count = whole.clone()
    _loops().pivot(rest.numpy(), u.numpy(), bits, count.numpy())
    return count
