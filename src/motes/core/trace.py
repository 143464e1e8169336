"""What each step of a run had to say, one row a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from motes.core.history.growing import Growing
from motes.core.particles import Particles
from motes.core.weights import summary
from motes.errors import UnknownName, plural

COLUMNS = ("t", "log_evidence", "ess", "entropy", "max_weight", "roots", "resampled", "seconds")
"""What every step says; models add their own."""


def row(particles: Particles, resampled: bool, seconds: float) -> dict[str, float]:
    """The diagnostics of one step; what the model put into `info` stands beside the engine's own."""
    own = {
        "t": float(particles.t),
        **summary(particles.log_weight),
        "roots": float(torch.bincount(particles.root, minlength=particles.n).count_nonzero()),
        "resampled": float(resampled),
        "seconds": seconds,
    }
    return own | {k: float(v) for k, v in particles.info.items()}


class Trace(Mapping[str, np.ndarray]):
    """Columns by name, one entry a step from t = 0 on; NaN where a step did not say.

    Always there: t, log_evidence (nats), ess, entropy (nats), max_weight, roots (time-0 ancestors that have
    descendants), resampled (1 if the population was resampled before the step), seconds. Models add their own:
    temperature, acceptance, step_size, ...
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()):
        self.rows: Growing[dict[str, Any]] = rows if isinstance(rows, Growing) else Growing(rows)

    def plus(self, row: dict[str, float]) -> Trace:
        """The trace with another step, which leaves this one as it is."""
        return Trace(self.rows.plus(row))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in iter(self):
            raise UnknownName("number of a step", name, self)
        return np.array([r.get(name, np.nan) for r in self.rows])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(k for r in self.rows for k in r))

    def __len__(self) -> int:
        """The number of columns."""
        return len(list(iter(self)))

    def state(self) -> dict[str, torch.Tensor]:
        """The columns as float64 tensors, for a file."""
        return {name: torch.from_numpy(self[name].astype(np.float64)) for name in self}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> Trace:
        """The trace that `state` described."""
        columns = {name: column.tolist() for name, column in state.items()}
        steps = len(next(iter(columns.values()), []))
        return cls([{k: v[i] for k, v in columns.items() if not math.isnan(v[i])} for i in range(steps)])

    def __repr__(self) -> str:
        return f"Trace({plural(len(self.rows), 'step')}: {', '.join(self)})"
