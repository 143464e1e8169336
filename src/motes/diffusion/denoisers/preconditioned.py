"""Networks with scaled inputs and outputs, as EDM trains them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.processes.process import Process
from motes.errors import check_positive


def preconditioned(
    network: Callable[[Tensor, Tensor], Tensor], process: Process, *, sigma_data: float = 0.5, name: str = ""
) -> Denoiser:
    """A network whose inputs and outputs are scaled to unit variance at every noise level, as a denoiser.

    With y = x / alpha and s = sigma / alpha, data = c_skip y + c_out network(c_in y, log(s) / 4) with c_skip =
    d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2) and c_in = 1 / sqrt(s^2 + d^2), where d is `sigma_data`.

    Args:
        network: maps (scaled x (N, ...), log(s) / 4 (N,)) to a tensor like x.
        process: the noising process.
        sigma_data: the standard deviation of the data that the network was trained with.
        name: kept with runs.

    Raises:
        ValueError: a `sigma_data` that is not positive.

    References:
        Karras, Aittala, Aila & Laine (2022), NeurIPS, Eq. (7) and Table 1.
    """
    check_positive(sigma_data=sigma_data)

    def model(x: Tensor, t: Tensor) -> Tensor:
        """The prediction of the data."""
        shape = (-1, *[1] * (x.ndim - 1))
        alpha, noise = process.alpha(t).to(x).reshape(shape), torch.exp(-process.log_snr(t)).to(x)
        level = noise.reshape(shape)
        total = torch.sqrt(level**2 + sigma_data**2)
        out = network(x / (alpha * total), torch.log(noise) / 4)
        return (sigma_data / total) ** 2 * x / alpha + level * sigma_data / total * out

    return Denoiser(model, process, predicts="data", name=name)
