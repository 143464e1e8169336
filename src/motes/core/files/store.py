"""One safetensors file for a run or a checkpoint: tensors by name, everything else as JSON in the header.

A file is written to the side, flushed to the disk and renamed, so that a crash leaves the old one or the new one. It
holds no code and none is run when it is read. The header has a digest of each tensor, and one of itself stands beside
it, so that a file that was damaged is told from a whole one. Digests say nothing of who wrote a file: what a reader
finds in it is checked before it is used (`core/files/schema.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motes.core.files.atomic import replacing
from motes.core.files.layout import laid, layout
from motes.core.files.schema import array, dictionary, either, number, record, text, whole
from motes.core.tree import Leaf, Missing, PyTree
from motes.errors import FileError, MissingFile

FORMAT = 3
DEEPEST = 60
"""How deep the trees of a file may be nested."""
PART = 1 << 24
"""Bytes that are digested at a time."""


def pack(tree: PyTree, name: str, tensors: dict[str, Tensor], depth: int = 0) -> Any:
    """The shape of a tree as JSON; its tensors are added to `tensors` under names that begin with `name`."""
    if depth > DEEPEST:
        raise FileError(f"{name} is nested more than {DEEPEST} deep, which a file cannot hold")
    if isinstance(tree, dict):
        if not all(isinstance(k, str) for k in tree):
            raise FileError(f"{name}: only dicts with string keys can be saved, not {list(tree)!r}")
        return {"dict": {k: pack(v, f"{name}/{k}", tensors, depth + 1) for k, v in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        if kind == "list" and all(isinstance(v, str) for v in tree):
            return {"texts": tree}
        return {kind: [pack(v, f"{name}/{k}", tensors, depth + 1) for k, v in enumerate(tree)]}
    if isinstance(tree, Leaf):
        return {"missing": len(tree)}
    if isinstance(tree, Tensor):
        while name in tensors:  # {"a/b": ...} beside {"a": {"b": ...}}
            name += "'"
        how = layout(tree)
        plain = tree.detach().cpu().resolve_conj().resolve_neg()
        tensors[name] = plain.clone(memory_format=torch.contiguous_format)
        return {"tensor": name} if how is None else {"tensor": name, "layout": how}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    raise FileError(f"{name} is a {type(tree).__name__}, which a file cannot hold: use tensors, numbers and strings")


def unpack(shape: Any, tensors: dict[str, Tensor], where: str, depth: int = 0) -> PyTree:
    """The tree that `pack` described; leaves that were no tensors come back as `Missing`."""
    if depth > DEEPEST:
        raise FileError(f"{where} is nested more than {DEEPEST} deep")
    if not isinstance(shape, dict) or len({**shape, "layout": 0}) != 2:
        raise FileError(f"{where} is not described as motes describes a tree")
    ((kind, value),) = ((k, v) for k, v in shape.items() if k != "layout")
    if kind == "dict":
        dictionary()(value, where)
        return {k: unpack(v, tensors, f"{where}[{k!r}]", depth + 1) for k, v in value.items()}
    if kind in ("tuple", "list"):
        array()(value, where)
        parts = [unpack(v, tensors, f"{where}[{k}]", depth + 1) for k, v in enumerate(value)]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "texts":
        return array(text())(value, where)
    if kind == "missing":
        return Missing(whole(1)(value, where))
    if kind == "tensor":
        if not isinstance(value, str) or value not in tensors:
            raise FileError(f"{where} stands for a tensor that the file does not hold")
        return laid(tensors[value], shape.get("layout"), where)
    if kind == "value":
        return either(text(), number(), None)(value, where)
    raise FileError(f"{where} is described as {kind!r}, which motes does not know")


def checksum(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes (of its numbers in order, wherever they lie)."""
    flat = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
    found = sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for part in flat.split(PART):
        found.update(part.numpy().tobytes())
    return found.hexdigest()


def write(
    path: str | os.PathLike[str], trees: dict[str, PyTree], meta: dict[str, Any], *, previous: Path | None = None
) -> Path:
    """Write `trees` and the JSON `meta` to `path`, whole or not at all; what it replaces goes to `previous`."""
    tensors: dict[str, Tensor] = {}
    header = {"format": FORMAT, "meta": meta, "trees": {k: pack(v, k, tensors) for k, v in trees.items()}}
    tensors = tensors or {"": torch.zeros(0)}
    written = json.dumps({**header, "digests": {k: checksum(v) for k, v in tensors.items()}})
    with replacing(path, previous=previous) as aside:
        save_file(tensors, aside, metadata={"motes": written, "digest": sha256(written.encode()).hexdigest()})
    return Path(path)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the JSON of a file that `write` made.

    Tensors are copies that lie in memory as those did that were written (`core/files/layout.py`). One that lies where
    the file had it, at any multiple of its type's size, may change the last bits of a matrix product.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: the file is truncated, damaged or not from motes.
    """
    path = Path(path)
    with _opened(path) as (f, content):
        tensors = {name: f.get_tensor(name).clone() for name in content["digests"]}
    bad = [name for name, tensor in tensors.items() if checksum(tensor) != content["digests"][name]]
    if bad:
        raise FileError(f"{path} is damaged: {', '.join(bad)} {'are' if len(bad) > 1 else 'is'} not what was written")
    try:
        return {k: unpack(v, tensors, k) for k, v in content["trees"].items()}, content["meta"]
    except FileError as error:
        raise FileError(f"{path} is no run that motes can read: {error}") from error


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON of a file that `write` made, without its tensors, which are not read; errors as `read`."""
    with _opened(Path(path)) as (_, content):
        return content["meta"]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file that motes wrote, with the JSON of its header."""
    if not path.is_file():
        raise MissingFile(f"there is no run at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            said = f.metadata() or {}
            if "motes" not in said:
                raise FileError(f"{path} is a safetensors file, but not one that motes wrote")
            content = _header(said, path)
            if set(f.keys()) != set(content["digests"]):
                raise FileError(f"{path} is damaged: its tensors are not those that its header names")
            yield f, content
    except FileError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{path} is no motes run, or it is truncated: {error}") from error


HEADER = record(format=whole(), meta=dictionary(), trees=dictionary(), digests=dictionary(text()))


def _header(said: dict[str, str], path: Path) -> dict[str, Any]:
    """The JSON of a file's header, which is what was written and has the parts that it must have."""
    try:
        content = json.loads(said["motes"])
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged: its header is no JSON that can be read ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise FileError(f"{path} has format {found}; this motes reads format {FORMAT}")
    if said.get("digest") != sha256(said["motes"].encode("utf-8", "surrogatepass")).hexdigest():
        raise FileError(f"{path} is damaged: its header is not what was written")
    try:
        return HEADER(content, "the header")
    except FileError as error:
        raise FileError(f"{path} is damaged: {error}") from error
