"""Denoising: a network learns what the data, noise or velocity was, from states of a process."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motes.diffusion.denoisers.denoiser import CONDITIONS, PREDICTIONS, Denoiser
from motes.diffusion.processes.process import Process
from motes.diffusion.training.conservative import asymmetry
from motes.errors import MotesError, UnknownName, check_share
from motes.learn.objective import Objective
from motes.rng import Rng

WEIGHTINGS = ("plain", "data", "truncated", "likelihood")
TIMES = ("time", "snr")
SNR_LIMIT = 5.0
Predicts = Literal["noise", "data", "velocity", "score", "flow", "backward flow"]


@dataclass(frozen=True)
class Noised:
    """States of a process x = alpha data + sigma noise at times t; levels are shaped to multiply images."""

    x: Tensor
    t: Tensor
    data: Tensor
    noise: Tensor
    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Denoising(Objective):
    """The squared error of a prediction of data, noise, score, velocity or flow, at random times.

    The error of any prediction is a multiple of the error of the data, e(t)^2 |data error|^2; the weighting chooses the
    multiple: "plain" is the error of what is predicted itself, "data" is 1, "truncated" is min(snr, 5) with
    snr = alpha^2 / sigma^2, and "likelihood" is g^2 alpha^2 / (2 sigma^4), whose integral over time bounds
    the log-likelihood. Whatever the weighting, the lowest loss is at the conditional mean.

    - `perturbation` gamma > 0 shows the network noise (noise + gamma xi) but asks for `noise`, as if the state came
      from a sampler with errors. The law learned is a slightly wider one: a bias, wanted.
    - `self_conditioning` p > 0 passes, with that probability for a batch, the network's own first estimate of the data
      as `estimate`; use `SelfConditioned` to sample.
    - `drop` is the probability that a label is hidden (-1), which guidance without a classifier needs.
    - `symmetry` weighs the asymmetry of the Jacobian (the curl) of what is predicted.

    Args:
        process: the noising process.
        predicts: what the network returns.
        weighting: "plain", "data", "truncated" or "likelihood".
        spacing: how times are spread, "time" or "snr" (equally over log alpha / sigma); None is "time" for a process
            whose own spacing is that, else "snr".
        condition: what the network is told, "t" or "sigma".
        perturbation, self_conditioning, drop, symmetry: see above; all off.

    Raises:
        UnknownName: an option with another name.
        ValueError: a share outside [0, 1] or a negative amount.

    References:
        Ho, Jain & Abbeel (2020), Denoising Diffusion Probabilistic Models, NeurIPS.
        Song, Durkan, Murray & Ermon (2021), Maximum Likelihood Training of Score-Based Diffusion Models, NeurIPS.
        Hang et al. (2023), Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV.
        Ning, Sangineto, Porrello, Calderara & Cucchiara (2023), Input Perturbation Reduces Exposure Bias in Diffusion
        Models, ICML.
        Chen, Zhang & Hinton (2023), Analog Bits: Generating Discrete Data using Diffusion Models with
        Self-Conditioning, ICLR.
        Ho & Salimans (2021), Classifier-Free Diffusion Guidance, NeurIPS workshop (dropping labels).
        Chao et al. (2023), On Investigating the Conservative Property of Score-Based Generative Models, ICML.

    Example:
        >>> import motes
        >>> from motes.diffusion import VariancePreserving
        >>> from motes.learn import PointNetwork, build
        >>> network = build(lambda: PointNetwork(2), seed=motes.Rng(0))
        >>> objective = Denoising(VariancePreserving(), predicts="noise")
        >>> objective(network, motes.Rng(1), (torch.zeros(4, 2),)).shape
        torch.Size([4])
    """

    process: Process
    _: KW_ONLY
    predicts: Predicts = "velocity"
    weighting: Literal["plain", "data", "truncated", "likelihood"] = "plain"
    spacing: Literal["time", "snr"] | None = None
    condition: Literal["t", "sigma"] = "t"
    perturbation: float = field(default=0.0, kw_only=True)
    self_conditioning: float = field(default=0.0, kw_only=True)
    drop: float = field(default=0.0, kw_only=True)
    symmetry: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        for kind, value, legal in (
            ("prediction", self.predicts, PREDICTIONS),
            ("weighting", self.weighting, WEIGHTINGS),
            ("spacing", self.spacing, (None, *TIMES)),
            ("condition", self.condition, CONDITIONS),
        ):
            if value not in legal:
                raise UnknownName(kind, value, (str(name) for name in legal))
        check_share("[0, 1]", self_conditioning=self.self_conditioning, drop=self.drop)
        if self.self_conditioning and self.condition != "t":
            raise MotesError('self-conditioning needs condition="t", so that an estimate can be made of an answer')
        if self.perturbation < 0 or self.symmetry < 0:
            raise MotesError(f"need perturbation >= 0, symmetry >= 0, not {self.perturbation}, {self.symmetry}")

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        at = noised(rng, self.process, batch[0], self.spacing)
        more: dict[str, Any] = {}
        if len(batch) > 1:
            hidden = rng.at("drop").uniform((len(at.t),)) < self.drop
            more["label"] = torch.where(hidden, -1, batch[1])
        gamma, x, told = self.perturbation, at.x, self._told(at)
        if gamma:
            extra = rng.at("perturbation").normal(tuple(x.shape), dtype=x.dtype)
            x = x + gamma * at.sigma * extra
        if self.self_conditioning:
            more["estimate"] = torch.zeros_like(x)
            if float(rng.at("estimate").uniform(())) < self.self_conditioning:
                with torch.no_grad():
                    first = network(x, told, **more)
                more["estimate"] = data_of(self.process, self.predicts, first, x, at.t)
        error = (network(x, told, **more) - self._target(at)).square().flatten(1).mean(1)
        loss = error * self._weight(at).to(error)
        if self.symmetry:
            curl = asymmetry(lambda z: network(z, told, **more), x, seed=rng.at("symmetry"))
            loss = loss + self.symmetry * curl / x[0].numel()
        return loss

    def _told(self, at: Noised) -> Tensor:
        return (at.t if self.condition == "t" else at.sigma.flatten()).to(at.x)

    def _target(self, at: Noised) -> Tensor:
        if self.predicts == "velocity":
            return at.alpha * at.noise - at.sigma * at.data
        if self.predicts in ("flow", "backward flow"):
            alpha_rate, sigma_rate = (rate.to(at.x).reshape(at.alpha.shape) for rate in self.process.rates(at.t))
            flow = alpha_rate * at.data + sigma_rate * at.noise
            return flow if self.predicts == "flow" else -flow
        return {"noise": at.noise, "data": at.data, "score": -at.noise / at.sigma}[self.predicts]

    def _weight(self, at: Noised) -> Tensor:
        """What multiplies the squared error of what is predicted."""
        if self.weighting == "plain":
            return torch.ones_like(at.t)
        nothing = torch.zeros(len(at.t), 1, dtype=torch.float64, device=at.t.device)
        per_data = data_of(self.process, self.predicts, torch.ones_like(nothing), nothing, at.t)[:, 0].square()
        snr = torch.exp(2 * self.process.log_snr(at.t))
        if self.weighting == "likelihood":
            return 0.5 * (self.process.diffusion(at.t) / self.process.sigma(at.t)).square() * snr * per_data
        return per_data * (snr.clamp(max=SNR_LIMIT) if self.weighting == "truncated" else 1.0)


def noised(rng: Rng, process: Process, data: Tensor, times: str | None = None) -> Noised:
    """States of a process at random times, spread evenly over the batch: one uniform number shifts them all."""
    place = torch.arange(len(data), device=data.device, dtype=torch.float64) / len(data)
    u = (place + rng.at("time").uniform(()).to(place)) % 1.0
    if (times or process.spacing) == "time":
        t = process.t_min + u * (process.t_max - process.t_min)
    else:
        low, high = float(process.log_snr(process.t_max)), float(process.log_snr(process.t_min))
        t = process.time(low + u * (high - low))
    return noised_at(rng, process, data, t)


def noised_at(rng: Rng, process: Process, data: Tensor, t: Tensor) -> Noised:
    """States of a process at given times (B,)."""
    shape = (-1, *[1] * (data.ndim - 1))
    alpha, sigma = (f(t).to(data).reshape(shape) for f in (process.alpha, process.sigma))
    noise = rng.at("noise").normal(tuple(data.shape), dtype=data.dtype).to(data.device)
    return Noised(alpha * data + sigma * noise, t, data, noise, alpha, sigma)


def data_of(process: Process, predicts: Predicts, out: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """What a prediction `out` for states x (N, ...) at times t (N,) says about the data."""
    return Denoiser(lambda *_: out, process, predicts=predicts).data(x, t)
