"""Moving a population until it has the law that it stands for: non-centred coordinates, and rounds of moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from motes.kernels.kernel import Kernel, Parameters, State, Target
from motes.kernels.moves import Moved, move
from motes.kernels.stationarity.dependence import Dependence
from motes.kernels.stationarity.drift import MeanDrift, drift_between
from motes.kernels.stationarity.noncentred import Map, NonCentred
from motes.kernels.stationarity.noncentred_fit import fit_map
from motes.rng import Rng

ROUNDS = 8
"""The most rounds of moves at one law."""
RESTLESS = 0.6
"""The part of what proves a drift at which another round is made."""


def settle(
    kernel: Kernel,
    rng: Rng,
    target: Target,
    state: State,
    weight: Tensor,
    family: Tensor,
    parameters: Parameters,
    dependence: Dependence | None,
    *,
    sweeps: int | Literal["auto"],
    max_correlation: float,
) -> tuple[Moved, MeanDrift]:
    """Move every particle in rounds of sweeps, until the means no longer drift from one round to the next.

    Before each round the map to non-centred coordinates is fitted again, so that it follows the particles into the
    narrow parts that it opens up to them.

    Args:
        weight: (N,) the particles' normalised weights.
        family: (N,) int64, see `kernels.drift.drift`.
        parameters: of the kernel, before `fit`.
        dependence: of scales on coordinates; None makes the moves in the coordinates as they are.
        sweeps: of each round; "auto" goes on until every coordinate has forgotten its start.

    Returns:
        What all rounds did together, `used` with the "map" of the last round; and the drift of the last round.
    """
    total, evaluations = 0, 0.0
    for i in range(ROUNDS):
        fitted = None if dependence is None else fit_map(state["position"], weight, dependence)
        law, inner = mapped(target, state, fitted)
        parameters = kernel.fit(parameters, law, inner, weight)
        before = state
        moved = move(
            kernel, rng.at("round", inner=i), law, inner, weight, parameters,
            sweeps=sweeps, max_correlation=max_correlation, every=True,
        )  # fmt: skip
        state = law.leave(moved.state) if isinstance(law, NonCentred) else moved.state
        parameters, total, evaluations = moved.parameters, total + moved.sweeps, evaluations + moved.info["evaluations"]
        found = drift_between(target, before, state, weight, family)
        if found.largest < RESTLESS * found.limit or i + 1 == ROUNDS:
            info = {**moved.info, "sweeps": float(total), "evaluations": evaluations, "rounds": i + 1.0}
            used = {**moved.used, "map": fitted}
            return replace(moved, state=state, sweeps=total, used=used, info=info), found
    raise AssertionError("a round is always the last")


def mapped(target: Target, state: State, fitted: Map | None) -> tuple[Target, State]:
    """The target and the state of its particles (N,) in the coordinates of a map; as they are without one."""
    if fitted is None:
        return target, state
    n = len(state["position"])
    law = NonCentred(target, fitted, torch.arange(n) >= (n + 1) // 2)
    return law, law.enter(state)
