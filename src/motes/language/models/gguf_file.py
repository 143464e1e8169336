"""The GGUF format: fields, the table of tensors, and their values, read so that a damaged file is an error at once.

Every count is compared with what is left of the file before anything is read or made, so a file costs no more memory
than its own size and that of its tensors in float32. Nothing in a GGUF file is code, and none is run.

References:
    The GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motes.errors import FileError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}  # (values, bytes) of a block
MOST_NAMES, MOST_ITEMS, MOST_AXES = 2**16, 2**21, 4
"""Fields or tensors of a file; items of all its arrays together (Gemma 3 has 1.3 million); axes of a tensor."""
ALIGNMENTS = [2**k for k in range(17)]


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in the file; `shape` is slowest axis first."""

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        """The bytes of the entry in the file, of a kind in `BLOCKS`."""
        values, size = BLOCKS[self.kind]
        return prod(self.shape) // values * size


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its tensors."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Entry]
    start: int

    def __getitem__(self, key: str) -> Any:
        if key not in self.fields:
            raise FileError(f"{self.path} has no field {key!r}: it is damaged, or no language model")
        return self.fields[key]

    def whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A field that must be a whole number of least..most."""
        value = self[key] if default is None else self.fields.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._refuse(key, f"a whole number of {least}..{most}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A field that must be a finite number above zero."""
        value = self[key] if default is None else self.fields.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
            self._refuse(key, "a finite number above zero")
        return float(value)

    def array(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        """A field that must be an array of this kind, and of this length if one is given."""
        value = self[key]
        fits = isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)
        if not fits or (length is not None and len(value) != length):
            self._refuse(key, f"an array of {'' if length is None else f'{length} '}{kind.__name__}")
        return value

    def _refuse(self, key: str, wanted: str) -> None:
        found = self.fields.get(key)
        shown = f"{len(found)} values" if isinstance(found, list) else repr(found)[:80]
        raise FileError(f"{self.path}: the field {key!r} must be {wanted}, and is {shown}")


class _Reader:
    """A cursor over the bytes of a file."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at, self.items = data, 0, 0

    def must_hold(self, count: int, size: int, what: str) -> None:
        """Raise struct.error unless at least `count` items of `size` bytes are left."""
        left = len(self.data) - self.at
        if count * size > left:
            raise struct.error(f"it has {count} {what}, and {left} bytes are left")

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        size = self.number("Q")
        self.must_hold(size, 1, "bytes of a text")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8")

    def name(self, known: dict[str, Any]) -> str:
        """A text that has not been read before."""
        name = self.text()
        if name in known:
            raise struct.error(f"{name[:80]!r} is there twice")
        return name

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(self.code(kind))
        item, count = self.number("I"), self.number("Q")
        if item == ARRAY:
            raise struct.error("arrays of arrays are not read")
        code = "" if item == STRING else self.code(item)
        self.must_hold(count, struct.calcsize("<" + code) if code else 8, "items of an array")
        self.items += count
        if self.items > MOST_ITEMS:
            raise struct.error(f"its arrays have more than {MOST_ITEMS} items, and no vocabulary is that long")
        if not code:
            return [self.text() for _ in range(count)]
        out = struct.unpack_from(f"<{count}{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{code}")
        return list(out)

    def code(self, kind: int) -> str:
        if kind not in SCALARS:
            raise struct.error(f"there is no type {kind} of value")
        return SCALARS[kind]

    def entry(self) -> Entry:
        axes = self.number("I")
        if not 1 <= axes <= MOST_AXES:
            raise struct.error(f"a tensor has {axes} axes")
        shape = tuple(self.number("Q") for _ in range(axes))[::-1]
        entry = Entry(shape, self.number("I"), self.number("Q"))
        if min(shape) < 1 or prod(shape) > 16 * len(self.data):  # the smallest types have some 2 bits a value
            raise struct.error(f"a tensor has the shape {shape}, more than the file holds")
        if entry.kind in BLOCKS and shape[-1] % BLOCKS[entry.kind][0]:
            raise struct.error(f"a tensor's rows of {shape[-1]} values are no whole blocks")
        return entry


def read_header(path: Path) -> Header:
    """The fields and the table of tensors of a GGUF file.

    Raises:
        FileError: the file is no GGUF file of version 2 or 3, or it is truncated, or says what cannot be.
    """
    try:
        with open(path, "rb") as f:
            if f.read(4) != b"GGUF":
                raise FileError(f"{path} is no GGUF file")
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    with data:
        r = _Reader(data)
        try:
            r.at = 4
            version, n_tensors, n_fields = r.number("I"), r.number("Q"), r.number("Q")
            if version not in (2, 3):
                raise FileError(f"{path} is GGUF version {version}; versions 2 and 3 are read")
            fields, tensors = _names(r, n_tensors, n_fields)
        except (struct.error, UnicodeDecodeError) as error:
            raise FileError(f"{path} is truncated or damaged in its header: {error}") from error
        step = fields.get("general.alignment", 32)
        if isinstance(step, bool) or step not in ALIGNMENTS:
            raise FileError(f"{path} is damaged: its alignment is {step!r:.80}, and must be a power of two up to 65536")
        header = Header(path, fields, tensors, -(-r.at // step) * step)
        _check_places(header, len(data))
    return header


def _names(r: _Reader, n_tensors: int, n_fields: int) -> tuple[dict[str, Any], dict[str, Entry]]:
    """The fields and the entries of `n_tensors` tensors."""
    for count, size, what in ((n_fields, 13, "fields"), (n_tensors, 32, "tensors")):
        r.must_hold(count, size, what)
        if count > MOST_NAMES:
            raise struct.error(f"it has {count} {what}, and {MOST_NAMES} are the most that are read")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        name = r.name(fields)
        fields[name] = r.value(r.number("I"))
    tensors: dict[str, Entry] = {}
    for _ in range(n_tensors):
        name = r.name(tensors)
        tensors[name] = r.entry()
    return fields, tensors


def _check_places(header: Header, length: int) -> None:
    """Raise FileError unless the tensors of known kinds lie in the file, each in a place of its own."""
    end = 0
    known = sorted((e.offset, e.size, name) for name, e in header.tensors.items() if e.kind in BLOCKS)
    for offset, size, name in known:
        if header.start + offset + size > length:
            raise FileError(f"{header.path} is truncated: it ends inside tensor {name[:80]!r}")
        if offset < end:
            raise FileError(f"{header.path} is damaged: the tensor {name[:80]!r} lies over another")
        end = offset + size


def dequantize(raw: Tensor, kind: int) -> Tensor:
    """The values (float32) of a flat uint8 tensor that holds blocks of type `kind`, one of `BLOCKS`."""
    if kind in (0, 1, 30):
        return raw.view({0: torch.float32, 1: torch.float16, 30: torch.bfloat16}[kind]).float()
    blocks = raw.view(-1, BLOCKS[kind][1])

    def half(at: int) -> Tensor:
        return blocks[:, at : at + 2].contiguous().view(torch.float16).float()

    if kind == 8:  # Q8_0: scale, 32 signed bytes
        return (half(0) * blocks[:, 2:].contiguous().view(torch.int8)).reshape(-1)
    nibbles = blocks[:, BLOCKS[kind][1] - 16 :]
    values = torch.cat([nibbles & 15, nibbles >> 4], 1)
    if kind == 2:  # Q4_0: scale, nibbles around 8
        return (half(0) * (values.to(torch.int8) - 8)).reshape(-1)
    return (half(0) * values + half(2)).reshape(-1)  # Q4_1: scale, minimum, nibbles


def read_tensors(header: Header) -> dict[str, Tensor]:
    """Every tensor of the file in float32, of the kinds in `BLOCKS`.

    Raises:
        FileError: the file ends before its tensors do.
    """
    data = np.memmap(header.path, dtype=np.uint8, mode="r")
    _check_places(header, len(data))
    out = {}
    for name, e in header.tensors.items():
        start = header.start + e.offset
        raw = torch.from_numpy(np.array(data[start : start + e.size]))
        out[name] = dequantize(raw, e.kind).reshape(e.shape)
    return out
