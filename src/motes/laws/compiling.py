"""Whether a run is long enough for `torch.compile` to pay.

What is decided goes into the last bits of every number after it, so it is decided by counts and never by a clock: the
operations of one evaluation, their sizes, and how many evaluations are ahead. All are functions of the run alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from motes.laws.law import Law

WORTH = 300.0
"""Seconds of work ahead that a compiler can make less of, on a common processor: a compilation takes 5 to 50 s, and
saves between nothing and 2/3."""
LEAST = 100.0
"""Evaluations that must be ahead for the work of one to be looked at, which takes one more."""
CALL, ELEMENT, PRODUCT = 4e-6, 1e-9, 5e-11
"""Seconds of one operation however small, of a number that it makes, and of a multiplication and addition in a matrix
product, about."""
WHOLE = (
    "mm",
    "mv",
    "dot",
    "conv",
    "linalg",
    "cholesky",
    "triangular",
    "solve",
    "eig",
    "svd",
    "qr",
    "inv",
    "fft",
    "sort",
)
"""Parts of the names of operations that a compiler passes on to a library as they are."""

log = logging.getLogger("motes")


@dataclass
class Work:
    """Seconds of one evaluation on a common processor: what a compiler can fuse, and what it leaves as it is."""

    fused: float = 0.0
    left: float = 0.0


class _Counting(TorchDispatchMode):
    """Adds up the work of all operations inside of `with`, those of a backward pass among them."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = sum(v.numel() for v in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(v, Tensor))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.work.left += PRODUCT * flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif any(part in packet.__name__ for part in WHOLE):
            self.work.left += CALL + ELEMENT * made * max((v.shape[-1] for v in args if _matrix(v)), default=1)
        else:
            self.work.fused += CALL + (0.0 if func.is_view else ELEMENT * made)
        return out


def _matrix(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


_counted: WeakKeyDictionary[Law, dict[tuple[int, bool], Work]] = WeakKeyDictionary()


def work(density: Law, z: Tensor, gradient: bool) -> Work:
    """The work of evaluating a density at z (N, dim); counted once for every N."""
    known = _counted.setdefault(density, {})
    if (len(z), gradient) not in known:
        with _Counting() as counting:
            density.evaluate(z, gradient, False)
        known[len(z), gradient] = counting.work
    return known[len(z), gradient]


def compiled_function(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """`f` through `torch.compile`, for shapes that stay."""
    with _distributions_unchecked():
        fast = torch.compile(f, dynamic=False)

    def call(z: Tensor) -> Any:
        with _distributions_unchecked():
            return fast(z)

    return call


@contextmanager
def _distributions_unchecked() -> Iterator[None]:
    """Distributions do not check their arguments, which a compiler cannot trace.

    The compiler stops that for the whole process, and for good; after `with`, a user's own check theirs as before.
    """
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def whether_compiled(
    density: Law, choice: bool | None, z: Tensor, gradient: bool, evaluations: float, before: float, after: float
) -> bool | None:
    """Whether the next steps run compiled; None is not decided yet.

    The decision is kept with the run, so that a run resumed after it goes on as it was.

    Args:
        choice: what was decided before.
        z: (N, dim) where the particles are.
        evaluations: how many of all particles the step took that raised the temperature from `before` to `after`.
    """
    if choice is not None or not 0 < before < after < 1:
        return choice
    return if_long(density, z, gradient, evaluations * math.log(1 / after) / math.log(after / before))


def if_long(density: Law, z: Tensor, gradient: bool, ahead: float) -> bool | None:
    """Whether to compile with `ahead` evaluations of z (N, dim) to come; None is not yet.

    It is refused, for the rest of the run, where the compiler fails or its numbers are others.
    """
    if ahead < LEAST:
        return None
    one = work(density, z, gradient)
    if one.fused * ahead < WORTH:
        return None
    if one.fused < one.left:
        return False
    log.info("about %.0f evaluations are ahead: compiling the density", ahead)
    return _agrees(density, z, gradient)


def _agrees(density: Law, z: Tensor, gradient: bool) -> bool:
    """Whether the compiled density gives what the plain one does."""
    plain = density.evaluate(z, gradient, False)
    try:
        compiled = density.evaluate(z, gradient, True)
    except Exception as error:  # noqa: BLE001 whatever a compiler trips over, the plain density goes on
        log.info("the density stays as it is, since it cannot be compiled: %s", error)
        return False
    same = all(torch.allclose(compiled[k], v, rtol=1e-6, atol=1e-9, equal_nan=True) for k, v in plain.items())
    if not same:
        log.info("the density stays as it is, since compiled it has other values")
    return same
