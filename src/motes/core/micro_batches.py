"""Evaluating a population in parts of one fixed size, so that results do not depend on how it is cut.

The last bits of a matrix product depend on the number of rows it is computed for. With a fixed part size every call
has the same number of rows (the last part is filled up with copies of its last row), and a particle's value no longer
depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from motes.core.tree import map_leaves
from motes.errors import check_at_least

Rows = TypeVar("Rows", Tensor, tuple[Tensor, ...], dict[str, Tensor])


def in_parts(f: Callable[..., Rows], size: int | None, *args: Tensor) -> Rows:
    """`f(*args)` computed on parts of exactly `size` rows and joined again; `size=None` is one call on everything.

    Args:
        f: maps tensors (size, ...) to a tensor (size, ...), or to a tuple or a dict of them, row by row.
        size: rows a call.
        args: tensors (N, ...) that share their first axis.
    """
    n = len(args[0])
    if size is None:
        return f(*args)
    check_at_least(1, micro_batch=size)
    out: list[Any] = []
    for start in range(0, n, size):
        part = [a[start : start + size] for a in args]
        rows = len(part[0])
        if rows < size:
            part = [torch.cat([p, p[-1:].expand(size - rows, *p.shape[1:])]) for p in part]
        out.append(map_leaves(lambda x, rows=rows: x[:rows], f(*part)))
    joined: Any = out[0]
    if isinstance(joined, dict):
        joined = {name: torch.cat([o[name] for o in out]) for name in joined}
    elif isinstance(joined, tuple):
        joined = tuple(torch.cat(o) for o in zip(*out, strict=True))
    else:
        joined = torch.cat(out)
    return joined
