"""What a broken twin must do, break one law and be told so; and kernels that decide otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor

from motes.kernels import Kernel
from motes.rng import Rng
from motes.testing import LawViolation

DECIDES = ("accepted", "metropolis", "ended")
"""What a kernel's file imports to accept or reject."""


@contextmanager
def breaks(law: str) -> Iterator[None]:
    """Fail unless a check finds that `law` is broken, before any other."""
    with pytest.raises(LawViolation) as caught:
        yield
    assert caught.value.law == law, str(caught.value)


def decides(kernel: type[Kernel]) -> bool:
    """Whether a kernel accepts or rejects by the house's own rule."""
    return any(name in vars(sys.modules[kernel.__module__]) for name in DECIDES)


def decide(monkeypatch: pytest.MonkeyPatch, accepted: Callable[[Rng, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Let all kernels decide by `accepted` from here on."""
    for name, module in list(sys.modules.items()):
        if name.startswith("motes.kernels.") and "accepted" in vars(module):
            monkeypatch.setattr(module, "accepted", accepted)
