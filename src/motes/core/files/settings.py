"""What identifies a model: its knobs as JSON, kept with a run and compared on resume.

A function cannot be compared; what it says of the saved particles `FeynmanKac.restore` asks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, partial)
"""What has no name that could be compared: two that do the same may be called differently."""
LETTERS = 16
"""Of a digest."""


def described(value: Any) -> Any:
    """A value as JSON that tells it from others.

    Tensors and arrays by a digest, models and other objects by their own `settings()`, dataclasses by their fields, all
    functions alike.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return described(value.item())
    if isinstance(value, (np.ndarray, Tensor)):
        return digest(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [described(part) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, Enum):
        return described(value.value)
    if not isinstance(value, type) and callable(own := getattr(value, "settings", None)):
        return own()
    if not isinstance(value, type) and is_dataclass(value):
        return {"name": type(value).__name__, **knobs(value)}
    if isinstance(value, type):
        return value.__name__
    return "function" if isinstance(value, FUNCTIONS) else {"name": type(value).__name__}


def knobs(owner: Any) -> dict[str, Any]:
    """What a dataclass was made with, as JSON."""
    return {field.name: described(getattr(owner, field.name)) for field in fields(owner) if field.init}


def short(value: Any) -> str:
    """A few letters that tell a value from others, where its description would be long."""
    return hashlib.sha256(json.dumps(described(value)).encode()).hexdigest()[:LETTERS]


def digest(*tensors: Tensor) -> str:
    """A few letters that tell tensors from others."""
    found = hashlib.sha256()
    for x in tensors:
        flat = x.detach().cpu().contiguous().reshape(-1)
        found.update(f"{tuple(x.shape)} {x.dtype}".encode())
        found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()[:LETTERS]
