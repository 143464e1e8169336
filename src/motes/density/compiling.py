"""Whether a run is long enough for `torch.compile` to pay."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from motes.density.density import Density

WORTH = 300.0
"""Seconds of evaluation that must still be ahead: compilation takes 5 to 50 s and saves up to two thirds."""

log = logging.getLogger("motes")


class CompileWhenItPays:
    """Watches one step of a run with `compile="auto"` and decides whether the next ones run compiled.

    The decision depends on the clock, so that two runs of more than about WORTH seconds may differ in their last bits,
    as a compiled function's do; a shorter run is never compiled. `compile=False` or `True` fixes it.
    """

    def __init__(self, density: Density, shared: dict[str, Any]):
        self.density, self.compiled, self.began = density, bool(shared["compiled"]), time.perf_counter()
        self.tried = "tried" in shared and bool(shared["tried"])

    def decide(self, before: float, after: float) -> bool:
        """Whether to go on compiled, after the step that raised the temperature from `before` to `after`."""
        if self.compiled or self.density.compile != "auto" or not before < after < 1:
            return self.compiled
        seconds = time.perf_counter() - self.began
        ahead = seconds * math.log(1 / after) / math.log(after / before)
        if ahead < WORTH:
            return False
        log.info("about %.0f s of sampling are ahead: compiling the density", ahead)
        return True
