"""How a tensor lies in memory, so that one that was read from a file can lie as the one that was written did.

The last bits of a matrix product depend on it: on strides (a factor of Cholesky's stands column by column), and on
addresses modulo 64 bytes, the width of the widest instructions (a slice begins where its whole has it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from motes.core.files.schema import array, record, refuse, whole

LINE = 64
"""Bytes to whose multiples torch aligns what it allocates."""
LAYOUT = record(stride=array(whole(0, 1 << 62)), offset=whole(0, LINE - 1))


def layout(tensor: Tensor) -> dict[str, Any] | None:
    """Strides (in numbers) and address (in bytes, modulo 64), as JSON; None where they are those of a new tensor."""
    offset = tensor.data_ptr() % LINE if tensor.device.type == "cpu" else 0
    if tensor.numel() == 0 or (tensor.stride() == _rows(tuple(tensor.shape)) and not offset):
        return None
    return {"stride": list(tensor.stride()), "offset": offset}


def laid(tensor: Tensor, how: Any, where: str) -> Tensor:
    """A copy of a tensor that lies in memory as `layout` said, or as new tensors do.

    Gaps between rows are cut to at most 64 bytes, so that a slice does not need the memory of its whole. A layout in
    which numbers would share a place, save for those of an expanded axis, is not restored.
    """
    plain = tensor.clone(memory_format=torch.contiguous_format)
    if how is None:
        return plain
    how = LAYOUT(how, where)
    stride, size, line = how["stride"], tensor.element_size(), LINE // tensor.element_size()
    if len(stride) != tensor.ndim or how["offset"] % size:
        raise refuse(stride, where, f"the layout of a tensor {tuple(tensor.shape)}")
    found = _without_gaps(tuple(tensor.shape), stride, line)
    if found is None:
        return plain
    strides, extent = found
    core = plain
    for axis, (length, s) in enumerate(zip(tensor.shape, stride, strict=True)):
        if length > 1 and s == 0:
            core = core.narrow(axis, 0, 1)
    buffer = torch.empty(extent + line, dtype=tensor.dtype)
    start = (how["offset"] - buffer.data_ptr()) % LINE // size
    return buffer.as_strided(tuple(core.shape), strides, start).copy_(core).expand(tensor.shape)


def _rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a new tensor."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(1, length)
    return tuple(reversed(strides))


def _without_gaps(shape: tuple[int, ...], stride: list[int], line: int) -> tuple[list[int], int] | None:
    """Smaller strides that are the same modulo `line`, and the numbers they span; None where places are shared.

    Axes that follow each other without a gap still do, and where there was a gap there is one.
    """
    new, then, now = list(stride), 1, 1
    for axis in sorted((k for k, n in enumerate(shape) if n > 1 and stride[k] > 0), key=lambda k: stride[k]):
        s = stride[axis]
        if s < then:
            return None
        least = now + (s > then)
        new[axis] = least + (s - least) % line
        then, now = then + s * (shape[axis] - 1), now + new[axis] * (shape[axis] - 1)
    return new, now
