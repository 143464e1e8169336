"""What a broken twin must do: break one law, and be told so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from motes.testing import LawViolation


@contextmanager
def breaks(law: str) -> Iterator[None]:
    """Fail unless a check finds that `law` is broken, before any other."""
    with pytest.raises(LawViolation) as caught:
        yield
    assert caught.value.law == law, str(caught.value)
