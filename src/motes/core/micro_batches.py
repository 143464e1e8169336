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

from motes.errors import MotesError

Rows = TypeVar("Rows", Tensor, tuple[Tensor, ...])


def in_parts(f: Callable[..., Rows], size: int | None, *args: Tensor) -> Rows:
    """`f(*args)` computed on parts of exactly `size` rows and joined again; `size=None` is one call on everything.

    Args:
        f: maps tensors (size, ...) to a tensor (size, ...), or to a tuple of them, row by row.
        size: rows a call.
        args: tensors (N, ...) that share their first axis.
    """
    n = len(args[0])
    if size is None:
        return f(*args)
    if size < 1:
        raise MotesError(f"micro_batch must be at least 1, not {size}")
    out: list[Any] = []
    for start in range(0, n, size):
        part = [a[start : start + size] for a in args]
        rows = len(part[0])
        if rows < size:
            part = [torch.cat([p, p[-1:].expand(size - rows, *p.shape[1:])]) for p in part]
        result = f(*part)
        out.append(tuple(r[:rows] for r in result) if isinstance(result, tuple) else result[:rows])
    joined: Any = tuple(torch.cat(o) for o in zip(*out, strict=True)) if isinstance(out[0], tuple) else torch.cat(out)
    return joined
