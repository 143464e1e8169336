"""The best few times out of many, by dynamic programming."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import MotesError


def best_path(cost: Tensor, steps: int) -> Tensor:
    """(steps + 1,) the rising places, from the first to the last, whose jumps cost least in total.

    Bellman's recursion: best_k(j) = min_i best_{k-1}(i) + cost(i, j), so the optimum is the global one of the grid.

    Args:
        cost: (M, M) what a jump from place i to a later place j costs; the rest is not looked at.
        steps: the number of jumps, at most M - 1.
    """
    m = len(cost)
    if not 1 <= steps < m:
        raise MotesError(f"{m} places have room for 1 to {m - 1} steps, not {steps}")
    later = torch.ones(m, m, dtype=torch.bool).triu(1)
    cost = torch.where(later, cost.to(torch.float64), torch.inf)
    best, came = cost[0], []
    for _ in range(steps - 1):
        best, place = (best[:, None] + cost).min(0)
        came.append(place)
    path = [m - 1]
    for place in reversed(came):
        path.append(int(place[path[-1]]))
    return torch.tensor([0, *reversed(path)])


def finer(grid: Tensor, path: Tensor, parts: int) -> Tensor:
    """The grid (M,), monotone, with the two cells beside each inner place of the path cut into parts."""
    share = torch.arange(1, parts, dtype=grid.dtype) / parts
    inner = path[1:-1]
    cells = torch.unique(torch.cat([inner - 1, inner]))
    left, right = grid[cells, None], grid[cells + 1, None]
    falling = bool(grid[0] > grid[-1])
    return torch.sort(torch.cat([grid, (left + share * (right - left)).flatten()]), descending=falling).values
