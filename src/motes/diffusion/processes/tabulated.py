"""The process of models that were trained with a table of noise levels, one a whole time."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process, processes
from motes.errors import MotesError, ShapeError


@processes.register
@dataclass(frozen=True, eq=False)
class Tabulated(Process):
    """A variance preserving process by its table: alpha(t)^2 = table[t] at the whole times t = 0 to T - 1.

    In between log(alpha) is linear, that is the noise rate is constant from one time to the next. Sampler times are
    rounded to whole ones, where the model was trained, if no two fall together.

    Args:
        table: (T,) falling numbers in (0, 1), the cumulative products of 1 - beta.
        spacing: how steps are spread.

    Raises:
        ShapeError, ValueError, UnknownName: what was given is no such table, or another spacing.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, NeurIPS, section 2.

    Example:
        >>> import torch
        >>> from motes.diffusion.processes.tabulated import Tabulated
        >>> process = Tabulated(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0))
        >>> process.times(3).tolist()
        [999.0, 666.0, 333.0, 0.0]
    """

    table: Tensor = field(repr=False)
    _: KW_ONLY
    spacing: str = "time"

    def __post_init__(self) -> None:
        table = self.table.detach().cpu().to(torch.float64)
        if table.ndim != 1 or len(table) < 2:
            raise ShapeError(f"the table must have shape (T,) with T >= 2, not {tuple(table.shape)}")
        if not bool(((table > 0) & (table < 1)).all()) or not bool((table.diff() < 0).all()):
            raise MotesError("the table must fall and lie strictly between 0 and 1")
        object.__setattr__(self, "table", table)
        self._check()

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return float(len(self.table) - 1)

    def _piece(self, t: Tensor) -> Tensor:
        """The stretch of the table that ends at or after t: where a step downwards goes."""
        return torch.clamp(torch.ceil(t).to(torch.int64) - 1, 0, len(self.table) - 2)

    def _log_square(self, t: Tensor) -> Tensor:
        low, log = self._piece(t), torch.log(self.table)
        return log[low] + (t - low) * (log[low + 1] - log[low])

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(0.5 * self._log_square(_t(t)))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-torch.expm1(self._log_square(_t(t))))

    def drift(self, t: Tensor | float) -> Tensor:
        low, log = self._piece(_t(t)), torch.log(self.table)
        return 0.5 * (log[low + 1] - log[low])

    def diffusion(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(-2 * self.drift(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        wanted, log = torch.nn.functional.logsigmoid(2 * _t(log_snr)), torch.log(self.table)
        low = torch.clamp(torch.searchsorted(-log, -wanted) - 1, 0, len(log) - 2)
        return low + (wanted - log[low]) / (log[low + 1] - log[low])

    def times(self, steps: int, spacing: str | None = None) -> Tensor:
        times = super().times(steps, spacing)
        whole = torch.round(times)
        return whole if bool((whole.diff() < 0).all()) else times

    @property
    def start_std(self) -> float:
        return 1.0


def _t(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)
