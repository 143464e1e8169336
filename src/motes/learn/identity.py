"""What tells one objective from another, as JSON: its class or code, and every value that it holds.

`core.files.settings` takes functions of one kind for the same; here their code and what they close over count.
"""

from __future__ import annotations

import dis
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import date, timedelta
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motes.core.files.settings import described, digest, short
from motes.learn.objective import Objective

LIBRARIES = {"motes", "torch", "numpy", "scipy"} | set(sys.stdlib_module_names)
"""Whose functions and classes are told by their names alone."""
WRITTEN = (complex, range, slice, date, timedelta, PurePath, type(...))
"""Values whose `repr` is all of them."""
PLAIN = (type(None), bool, int, float, str, bytes, tuple, Tensor, np.ndarray, np.generic, Enum, ModuleType, *WRITTEN)
"""Values that cannot hold themselves."""
LONG = 16
"""Items of a list beyond which it is told by a digest."""
CONSTANT = (type(None), bool, int, float, complex, str, bytes, tuple, Tensor, np.ndarray, nn.Module, type, partial)
"""Kinds of global that are compared where a function reads them; others may be logs and counters."""
NOTHING = ("nothing",)
"""What one description has and the other has not; no JSON is equal to it."""
OF_MODULES = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules"}


class Identity:
    """Describes an objective part by part; `left_out` names the parts that could not be told from others.

    Args:
        network: what is trained, whose weights are not a part of what an objective is.
    """

    def __init__(self, network: nn.Module):
        self.left_out: list[str] = []
        self.met = {id(m): (m, f"network.{name}".rstrip(".")) for name, m in network.named_modules()}
        self.met |= {id(p): (p, f"network.{name}") for name, p in network.named_parameters()}

    def of(self, value: Any, where: str = "objective") -> Any:
        """A value as JSON; `where` names it, so that a second meeting is told as the first."""
        if id(value) in self.met:
            return f"the same as {self.met[id(value)][1]}"
        if not isinstance(value, PLAIN):
            self.met[id(value)] = value, where
        try:
            return self.part(value, where)
        except (RuntimeError, TypeError, ValueError):
            return self.leave(value, where)

    def leave(self, value: Any, where: str) -> dict[str, Any]:
        """What is said of a part that cannot be looked into: its class."""
        self.left_out.append(where)
        return {"class": named(type(value)), "compared": False}

    def part(self, value: Any, where: str) -> Any:
        if isinstance(value, (Tensor, np.ndarray)):
            return digest(torch.as_tensor(value))
        if isinstance(value, Enum):
            return f"{named(type(value))}.{value.name}"
        if value is None or isinstance(value, (bool, int, float, str, bytes, np.generic, torch.dtype, torch.device)):
            return described(value)
        if isinstance(value, WRITTEN):
            return repr(value)
        if isinstance(value, Mapping):
            return {str(k): self.of(v, f"{where}[{k!r}]") for k, v in value.items()}
        if isinstance(value, (tuple, list)):
            parts = [self.of(v, f"{where}[{i}]") for i, v in enumerate(value)]
            return parts if len(parts) <= LONG else f"{len(parts)} items, {short(parts)}"
        if isinstance(value, Set):
            return sorted((self.of(v, where) for v in value), key=json.dumps)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, type):
            return self.kind(value, where)
        if isinstance(value, FunctionType):
            return self.function(value, where)
        if isinstance(value, MethodType):
            return {
                "of": self.of(value.__self__, where),
                "method": self.of(value.__func__, f"{where}.{value.__name__}"),
            }
        if isinstance(value, partial):
            return {k: self.of(getattr(value, k), f"{where}.{k}") for k in ("func", "args", "keywords")}
        if isinstance(value, BuiltinFunctionType):
            return named(value)
        return self.instance(value, where)

    def instance(self, value: Any, where: str) -> dict[str, Any]:
        """An object by its class and what it holds, without what it works out from that."""
        slots = {s for c in type(value).__mro__ for s in slots_of(c)}
        own = getattr(value, "__dict__", None)
        if own is None and not slots:
            return self.leave(value, where)
        held = {k: v for k in sorted(slots) if (v := getattr(value, k, NOTHING)) is not NOTHING} | (own or {})
        derived = {f.name for f in fields(value) if not f.init} if is_dataclass(value) else set()
        if isinstance(value, nn.Module):
            derived |= OF_MODULES
        derived |= {k for k in held if isinstance(getattr(type(value), k, None), cached_property)}
        parts = {k: self.of(v, f"{where}.{k}") for k, v in held.items() if k not in derived}
        return {"class": self.of(type(value), f"{where}.class"), **parts}

    def kind(self, value: type, where: str) -> Any:
        """Tell a class by its name and, where it is the user's own, by its methods and constants."""
        own = {}
        for c in value.__mro__:
            for k, v in vars(c).items() if foreign(c) else ():
                if k == "__call__" or not (k.startswith("__") or k == "_abc_impl"):
                    v = v.func if isinstance(v, cached_property) else v.fget if isinstance(v, property) else v
                    v = getattr(v, "__func__", v)
                    if type(v).__name__ not in ("member_descriptor", "getset_descriptor"):
                        own[f"{c.__name__}.{k}"] = self.of(v, f"{where}.{k}")
        return {"name": named(value), **own} if own else named(value)

    def function(self, f: FunctionType, where: str) -> dict[str, Any]:
        """A function by its name, code, defaults and what it closes over or reads of its module."""
        found: dict[str, Any] = {"name": named(f)}
        given = {"defaults": f.__defaults__, "defaults by keyword": f.__kwdefaults__}
        values: dict[str, Any] = {k: v for k, v in given.items() if v}
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            try:
                values[name] = cell.cell_contents
            except ValueError:
                found[name] = "empty"
        values |= {f"attribute {k}": v for k, v in vars(f).items()}
        if foreign(f) or "<" in f.__qualname__:
            found["code"] = hashlib.sha256(json.dumps(written(f.__code__)).encode()).hexdigest()[:16]
            for name in sorted(set(read(f.__code__))):
                if name in f.__globals__ and is_constant(f.__globals__[name]):
                    values[name] = f.__globals__[name]
        return found | {k + "'" * (k in found): self.of(v, f"{where}.{k}") for k, v in values.items()}  # a cell "code"


def identity(objective: Objective, network: nn.Module) -> tuple[Any, list[str]]:
    """An objective as JSON, and the names of its parts that could not be told; its own `settings()` come first."""
    if callable(own := getattr(objective, "settings", None)):
        return {"name": named(type(objective)), "settings": described(own())}, []
    found = Identity(network)
    return found.of(objective), found.left_out


def named(value: Any) -> str:
    """Say where a class or function is defined: its module and name."""
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', value)}"


def foreign(value: Any) -> bool:
    """Whether a class or function is the user's own."""
    return str(value.__module__).partition(".")[0] not in LIBRARIES


def slots_of(c: type) -> tuple[str, ...]:
    own = vars(c).get("__slots__", ()) if foreign(c) or named(c).startswith("motes.") else ()
    return tuple(s for s in ((own,) if isinstance(own, str) else own) if s not in ("__dict__", "__weakref__"))


def is_constant(value: Any) -> bool:
    frozen = is_dataclass(value) and type(value).__hash__ is not None
    return isinstance(value, (FunctionType, *CONSTANT)) or frozen


def written(code: CodeType) -> list[Any]:
    """Code as JSON, without the file and lines where it stands."""
    return [code.co_code.hex(), [constant(c) for c in code.co_consts], list(code.co_names), list(code.co_freevars)]


def constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return written(value)
    if isinstance(value, frozenset):
        return sorted((constant(v) for v in value), key=json.dumps)
    return [constant(v) for v in value] if isinstance(value, tuple) else repr(value)


def read(code: CodeType) -> Iterator[str]:
    """The globals that code reads and never sets."""
    told = list(dis.get_instructions(code))
    stored = {i.argval for i in told if i.opname == "STORE_GLOBAL"}
    yield from (i.argval for i in told if i.opname == "LOAD_GLOBAL" and i.argval not in stored)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from read(part)


def differences(was: Any, now: Any, where: str) -> Iterator[str]:
    """Where two descriptions differ, leaf by leaf."""
    if isinstance(was, dict) and isinstance(now, dict):
        for k in dict.fromkeys((*now, *was)):
            yield from differences(was.get(k, NOTHING), now.get(k, NOTHING), f"{where}.{k}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (a, b) in enumerate(zip(was, now, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif was != now:
        yield f"{where}: there {told(was)}, here {told(now)}"


def told(value: Any) -> str:
    """A leaf, or the name of a part, for a message."""
    if value is NOTHING:
        return "nothing"
    if isinstance(value, dict):
        inner = value.get("name", value.get("class", f"{len(value)} parts"))
        return told(inner)
    return value if isinstance(value, str) and len(value) < 80 else str(value)[:80]
