"""What moves of whole numbers ask of a target: how many levels there are, and what each would add."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.errors import MotesError
from motes.kernels.kernel import State, Target


def levels_of(target: Target) -> int:
    """How many levels the coordinates have.

    Raises:
        MotesError: positions are not whole numbers.
    """
    if target.levels is None:
        raise MotesError(
            "this kernel moves whole numbers, and the target is over real vectors: use a kernel like 'random-walk', or "
            "a density like Discrete"
        )
    return target.levels


def gains(target: Target, state: State) -> tuple[Tensor, Tensor]:
    """What the gradient says that each level of each coordinate adds to the log-density (N, d, levels), and where x is.

    The second is (N, d, 1) int64; gains are float64.
    """
    now = state["position"].long()[..., None]
    slope = target.gradient(state).to(torch.float64)
    return slope - slope.gather(2, now), now
