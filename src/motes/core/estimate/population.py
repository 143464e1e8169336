"""What estimates see of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from motes.core.estimate.variance import StandardError
from motes.core.history.genealogy import Genealogy
from motes.core.result import Result
from motes.core.views._view import View


class Population(Protocol):
    """A run as estimates from several of them see it; each of these is what `Run` says."""

    @property
    def n(self) -> int: ...
    @property
    def result(self) -> Result: ...
    @property
    def setup(self) -> dict[str, Any]: ...
    @property
    def shown(self) -> View: ...
    @property
    def genealogy(self) -> Genealogy: ...
    @property
    def replicas(self) -> Sequence[Population]: ...
    @property
    def score(self) -> Tensor | None: ...
    @property
    def log_evidence(self) -> float: ...
    @property
    def particles_error(self) -> StandardError: ...
    @property
    def own_error(self) -> StandardError | None: ...
