"""Ways to compute the same numbers: plain torch (normative), numba on the CPU, Triton on CUDA.

A route is a module with `draw` and `words`. Every route gives the same bits, so which one runs is a matter of time
alone, and "auto" may choose anew at every call.
"""

from __future__ import annotations

import time
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from motes.errors import MotesError

from . import reference

ROUTES = ("auto", "reference", "numba", "triton")
PATIENCE = 1.0  # seconds of plain torch before the compiler is called: about what loading the compiled loops costs
REFERENCE_SPEED = 5e6  # numbers a second, roughly

_spent = 0.0  # seconds that "auto" has spent in the reference route on the CPU


@cache
def missing(route: str) -> str:
    """Why a route cannot run here; empty if it can."""
    try:
        if route == "numba":
            from . import cpu  # noqa: F401
        if route == "triton":
            if not torch.cuda.is_available():
                return "torch sees no CUDA device"
            from . import cuda  # noqa: F401
    except ImportError as error:
        extra = " (pip install 'motes[fast]')" if route == "numba" else ""
        return f"{route} cannot be loaded{extra}: {error}"
    return ""


def available(device: torch.device | str = "cpu") -> list[str]:
    """The routes that can run on a device, the normative one first."""
    fast = {"cpu": "numba", "cuda": "triton"}.get(torch.device(device).type)
    return ["reference", *([fast] if fast and not missing(fast) else [])]


def _load(route: str) -> ModuleType:
    if why := missing(route):
        raise MotesError(f"the {route!r} route of motes.rng cannot be used: {why}; route='auto' takes what there is")
    if route == "numba":
        from . import cpu

        return cpu
    from . import cuda

    return cuda


def _choose(device: torch.device, size: int) -> ModuleType:
    """The route that "auto" takes for `size` numbers on a device."""
    if device.type == "cuda":
        return reference if missing("triton") else _load("triton")
    if device.type == "cpu" and _spent + size / REFERENCE_SPEED > PATIENCE and not missing("numba"):
        return _load("numba")
    return reference


def _run(function: str, route: str, device: torch.device, size: int, *args: Any) -> Tensor:
    global _spent
    if route == "auto":
        module = _choose(device, size)
    else:
        module = reference if route == "reference" else _load(route)
        needs = {"numba": "cpu", "triton": "cuda"}.get(route, device.type)
        if needs != device.type:
            raise MotesError(f"the {route!r} route works on {needs}, but this Rng is on {device}; use route='auto'")
    if route != "auto" or module is not reference or device.type != "cpu":
        return getattr(module, function)(*args)
    start = time.perf_counter()
    value = getattr(module, function)(*args)
    _spent += time.perf_counter() - start
    return value


def draw(route: str, generator: Any, what: str, key: Any, particle: Tensor, count: int, *rest: Any) -> Tensor:
    """Draws 0..count-1 of each particle (n, count) by the named route; see `reference.draw`."""
    size = particle.shape[0] * count
    return _run("draw", route, particle.device, size, generator, what, key, particle, count, *rest)


def words(route: str, generator: Any, key: Any, particle: Tensor, first: Tensor, *rest: Any) -> Tensor:
    """Consecutive words of each particle (m, count) by the named route; see `reference.words`."""
    return _run("words", route, particle.device, particle.shape[0], generator, key, particle, first, *rest)
