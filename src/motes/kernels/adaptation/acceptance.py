"""The step that has the wanted acceptance, where acceptance is 2 Phi(-k h^p) at step h: one sweep gives k."""

from __future__ import annotations

import math
from statistics import NormalDist

from motes.kernels.kernel import Parameters


def difficulty(acceptance: float, step: float, power: int) -> float:
    """The k at which 2 Phi(-k step^power) is `acceptance`, kept to where that tells something."""
    return -NormalDist().inv_cdf(min(max(acceptance, 1e-3), 0.999) / 2) / step**power


def cubic_step(difficulty: float, acceptance: float) -> float:
    """The step h at which 2 Phi(-difficulty h^3) is `acceptance`."""
    return (-NormalDist().inv_cdf(acceptance / 2) / difficulty) ** (1 / 3)


def rescaled_step(parameters: Parameters, found: float, wanted: float, power: int) -> Parameters:
    """The step with the wanted acceptance if 2 Phi(-k h^power) was `found`, at most twice or half of what it was."""
    quantile = NormalDist().inv_cdf
    ratio = (quantile(wanted / 2) / quantile(min(max(found, 1e-3), 0.999) / 2)) ** (1 / power)
    return {**parameters, "step_size": parameters["step_size"] * min(max(ratio, 0.5), 2.0)}


def farthest(step: float, acceptance: float, power: int) -> float:
    """The b in (0, 1] with the largest mean squared move, if acceptance is 2 Phi(-k b^power) and was this at `step`.

    Accepted or not, a proposal is 2 (1 - sqrt(1 - b^2)) away from a standard Gaussian's draw in each dimension.
    """
    k = difficulty(acceptance, step, power)

    def moved(b: float) -> float:
        return b * b / (1 + math.sqrt(1 - b * b)) * math.erfc(k * b**power / math.sqrt(2))

    # steps of 9 % from 1 down, no farther than to a quarter or four times of what it was
    grid = [b for b in (2 ** (-j / 8) for j in range(200)) if step / 4 <= b <= 4 * step]
    return max(grid, key=moved)
