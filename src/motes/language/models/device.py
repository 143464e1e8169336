"""The devices of torch that there are here."""

from __future__ import annotations

import torch

from motes.errors import MotesError


def device_here(device: object) -> torch.device:
    """The device that is meant.

    Raises:
        MotesError: torch knows no such device, or it is not here; the message names those that are.
    """
    there = f"there is {', '.join(names())}"
    try:
        found = torch.device(device)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (RuntimeError, TypeError):
        raise MotesError(f"device must be a device of torch, not {device!r}; {there}") from None
    if found.type in ("cpu", "meta"):
        return found
    kind = torch.get_device_module(found.type) if found.type in ("cuda", "mps", "xpu") else None
    count = kind.device_count() if kind is not None and kind.is_available() else 0
    if (found.index or 0) >= count:
        raise MotesError(f"device={str(device)!r} is not here, as torch sees it; {there}")
    return found


def names() -> list[str]:
    """The devices that torch sees here."""
    cuda = [f"cuda:{k}" for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
