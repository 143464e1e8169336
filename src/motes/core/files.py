"""One safetensors file for a run or a checkpoint: tensors by name, everything else as JSON in the header.

A file is written to the side, flushed to the disk and renamed, so that a crash leaves the old one or the new one. It
holds no code and none is run when it is read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motes.core.errors import FileError
from motes.core.tree import Leaf, Missing, PyTree

FORMAT = 1


def pack(tree: PyTree, name: str, tensors: dict[str, Tensor]) -> Any:
    """The shape of a tree as JSON; its tensors are added to `tensors` under names that begin with `name`."""
    if isinstance(tree, dict):
        if not all(isinstance(k, str) for k in tree):
            raise FileError(f"{name}: only dicts with string keys can be saved, not {list(tree)!r}")
        return {"dict": {k: pack(v, f"{name}/{k}", tensors) for k, v in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        if kind == "list" and all(isinstance(v, str) for v in tree):
            return {"texts": tree}
        return {kind: [pack(v, f"{name}/{k}", tensors) for k, v in enumerate(tree)]}
    if isinstance(tree, Leaf):
        return {"missing": len(tree)}
    if isinstance(tree, Tensor):
        while name in tensors:  # {"a/b": ...} beside {"a": {"b": ...}}
            name += "'"
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    raise FileError(f"{name} is a {type(tree).__name__}, which a file cannot hold: use tensors, numbers and strings")


def unpack(shape: Any, tensors: dict[str, Tensor]) -> PyTree:
    """The tree that `pack` described; leaves that were no tensors come back as `Missing`."""
    ((kind, value),) = shape.items()
    if kind == "dict":
        return {k: unpack(v, tensors) for k, v in value.items()}
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(unpack(v, tensors) for v in value)
    if kind == "missing":
        return Missing(value)
    if kind == "tensor":
        return tensors[value]
    return value


def write(path: str | os.PathLike[str], trees: dict[str, PyTree], meta: dict[str, Any]) -> Path:
    """Write `trees` and the JSON `meta` to `path`, whole or not at all."""
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    header = {"format": FORMAT, "meta": meta, "trees": {k: pack(v, k, tensors) for k, v in trees.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.motes.tmp")
    try:
        save_file(tensors or {"": torch.zeros(0)}, aside, metadata={"motes": json.dumps(header)})
        with open(aside, "rb") as f:
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
    return path


def read(path: str | os.PathLike[str]) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the JSON of a file that `write` made.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: the file is truncated, damaged or not from motes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no run at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            header = (f.metadata() or {}).get("motes")
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path} is no motes run, or it is truncated: {error}") from error
    if header is None:
        raise FileError(f"{path} is a safetensors file, but not one that motes wrote")
    try:
        content = json.loads(header)
        if content["format"] != FORMAT:
            raise FileError(f"{path} has format {content['format']}; this motes reads format {FORMAT}")
        return {k: unpack(v, tensors) for k, v in content["trees"].items()}, content["meta"]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} has a damaged header: {error!r}") from error
