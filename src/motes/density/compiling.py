"""Whether a run is long enough for `torch.compile` to pay."""

from __future__ import annotations

import logging
import math
import time

from torch import Tensor

from motes.density.law import Law

WORTH = 300.0
"""Seconds of evaluation that must still be ahead: a compilation takes 5 to 50 s and saves between nothing and 2/3."""

log = logging.getLogger("motes")


def whether_compiled(
    density: Law, choice: bool | None, z: Tensor, gradient: bool, seconds: float, before: float, after: float
) -> bool | None:
    """Whether the next steps run compiled; None is not decided yet.

    The decision looks at the clock, so that the last bits of a run of more than about `WORTH` seconds can differ from
    those of another; a shorter run is never compiled, and `compile=False` or `True` fixes it for all. It is kept with
    the run, so that a run resumed after it goes on as it was.

    Args:
        choice: what was decided before.
        z: (N, dim) where to try it.
        seconds: what the step took that raised the temperature from `before` to `after`.
    """
    if choice is not None or not before < after < 1:
        return choice
    return if_long(density, z, gradient, seconds * math.log(1 / after) / math.log(after / before))


def if_long(density: Law, z: Tensor, gradient: bool, ahead: float) -> bool | None:
    """Whether to compile with `ahead` seconds of evaluation to come; None is not yet.

    The same remark on the clock as above holds.
    """
    if ahead < WORTH:
        return None
    log.info("about %.0f s of sampling are ahead: compiling the density", ahead)
    density.evaluate(z, gradient, True)
    eager, compiled = (min(_seconds(density, z, gradient, how) for _ in range(3)) for how in (False, True))
    log.info("an evaluation takes %.3g s as it is and %.3g s compiled", eager, compiled)
    return compiled < eager


def _seconds(density: Law, z: Tensor, gradient: bool, compiled: bool) -> float:
    began = time.perf_counter()
    density.evaluate(z, gradient, compiled)
    return time.perf_counter() - began
