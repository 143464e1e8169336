"""Where kernels take particles on the curved law of `motes.testing`, for tests of more than its laws."""

from __future__ import annotations

from torch import Tensor

from motes.kernels import Kernel, Parameters, Target
from motes.rng import Rng
from motes.testing.exact_laws import Bent
from motes.testing.kernels import sweeps as swept
from motes.testing.violation import farthest


def bias(x: Tensor) -> float:
    """The largest z-score of six moments of draws from `Bent`."""
    return farthest(Bent.means(x))[0]


def after(
    kernel: Kernel, rng: Rng, x: Tensor, sweeps: int = 3, target: Target | None = None, knobs: Parameters | None = None
) -> Tensor:
    """Where `sweeps` sweeps of a kernel take x (N, d), with its starting parameters."""
    target = target or Bent()
    parameters = {**kernel.start(x.shape[1], x.dtype), **(knobs or {})}
    state = target.evaluate(x, kernel.gradient)
    for sweep in swept(kernel, rng, target, state, parameters, sweeps):
        state = sweep.state
    return state["position"]
