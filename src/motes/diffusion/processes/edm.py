"""The process whose time is the noise level, and the scaling of networks that goes with it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from motes.diffusion.processes.process import Process, processes
from motes.errors import check_positive


@processes.register
@dataclass(frozen=True)
class EDM(Process):
    """alpha = 1 and sigma = t: noise is added to the data, and time is its standard deviation.

    Args:
        t_min, t_max: the least and the largest noise, in units of the data.
        rho: the power of Karras's spacing: larger puts more steps where there is little noise.
        spacing: "karras", "snr" (here the same as "geometric") or "time".

    Raises:
        UnknownName, ValueError: another spacing; times that do not fit.

    References:
        Karras, Aittala, Aila & Laine (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
        NeurIPS, Table 1 and Eq. (5).

    Example:
        >>> from motes.diffusion.processes.edm import EDM
        >>> EDM().times(2).tolist() == [80.0, EDM().times(2)[1].item(), 0.002]
        True
    """

    t_min: float = 0.002
    _: KW_ONLY
    t_max: float = 80.0
    rho: float = 7.0
    spacing: str = "karras"

    def __post_init__(self) -> None:
        self._check()
        check_positive(rho=self.rho)

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(self.sigma(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.as_tensor(t, dtype=torch.float64)

    def drift(self, t: Tensor | float) -> Tensor:
        return torch.zeros_like(self.sigma(t))

    def diffusion(self, t: Tensor | float) -> Tensor:
        return torch.sqrt(2 * self.sigma(t))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return self.drift(t), self.alpha(t)

    def time(self, log_snr: Tensor | float) -> Tensor:
        return torch.exp(-torch.as_tensor(log_snr, dtype=torch.float64))

    @property
    def start_std(self) -> float:
        return self.t_max
