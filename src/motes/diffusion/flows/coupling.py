"""Whether a flow model is of the kind that noise may be added to: data and noise that were drawn apart.

A flow is trained on pairs of data and noise. If these are drawn independently, its velocity is the expected dx_t/dt of
x_t = alpha x_0 + sigma noise, hence tells the denoised prediction E[x_0 | x_t] and the score, and steps with noise have
the model's marginals. If they are paired (by optimal transport, by the samples of another flow, as in reflow), the flow
still carries noise to data, but that "prediction" is none: whoever steps with noise samples another law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from motes.core.estimate.estimate import Estimate
from motes.core.micro_batches import in_parts
from motes.core.remark import ALL, Remark
from motes.diffusion.arguments import check_networks
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.flows.solvers import Leg, Model, heun
from motes.diffusion.processes.process import Process
from motes.rng import Rng

STEPS = 10
"""Steps of Heun's rule that make the samples to test with."""
LEVELS = (-1.5, -0.5, 0.5, 1.5)
"""The log(alpha / sigma) at which predictions are tested, for data of unit deviation."""
NUMBERS = 2048
"""Numbers of data that a test looks at, all samples and dimensions together."""
TOLERATED = 0.08
"""How far the slope may be from 1 before a flow is called coupled: networks and ten steps are not exact."""
SURE = 4.0


@dataclass(frozen=True)
class Coupling:
    """How the data of a flow's own samples depend on its predictions from anew noised samples: slopes that must be 1.

    Attributes:
        times: (T,) the times of the noise.
        slope: (T,) the regression of the data on the predictions, all dimensions together.
    """

    times: Tensor
    slope: Estimate[Tensor]

    @property
    def worst(self) -> int:
        """The time at which most is against independence."""
        return int(self._excess().argmax())

    @property
    def independent(self) -> bool:
        """Whether nothing speaks against data and noise that were drawn apart."""
        return not bool((self._excess() > 0).any())

    def _excess(self) -> Tensor:
        return (self.slope.value - 1).abs() - (SURE * self.slope.se + TOLERATED)

    def __str__(self) -> str:
        t, slope, se = (float(v[self.worst]) for v in (self.times, self.slope.value, self.slope.se))
        return f"at t={t:.2g} data depend on predictions with slope {slope:.2f} +- {se:.2f}, and not 1"


def coupling_test(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    *,
    n: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    micro_batch: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Coupling:
    """Test a flow model's velocity for the identity of independent data and noise, on the flow's own samples.

    Samples of the probability flow, which has the right law whatever the coupling, are noised anew; then the expected
    data given a noised sample must be the prediction there, so that the data regress on the predictions with slope 1.

    Args:
        denoiser: the model.
        shape: of one sample.
        n: samples; None takes as many as have `NUMBERS` numbers, between 8 and 1024.
        steps: of the flow, two evaluations each; every level of noise costs one more.
        seed: of the noise.
        micro_batch, dtype, device: as for the samplers.

    References:
        Lipman, Chen, Ben-Hamu, Nickel & Le (2023), Flow Matching for Generative Modeling, ICLR, Eq. 8 (the identity).
        Tong et al. (2024), Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport,
        TMLR (flows of other couplings).

    Example:
        >>> import torch
        >>> from motes.diffusion import Denoiser
        >>> from motes.diffusion.flows.coupling import coupling_test
        >>> from motes.diffusion.processes.interpolant import RectifiedFlow
        >>> transport = Denoiser(lambda x, t: 0.5 * x / (0.5 + 0.5 * t[:, None]), RectifiedFlow(), predicts="flow")
        >>> coupling_test(transport, (1,)).independent  # the optimal map from N(0, 1) to N(0, 1/4)
        False
    """
    check_networks(denoiser=denoiser)
    process, rng = denoiser.process, Rng(seed).at("coupling")
    n = max(8, min(1024, math.ceil(NUMBERS / math.prod(shape)))) if n is None else n

    def ask(x: Tensor, t: float) -> Tensor:
        with torch.no_grad():
            return in_parts(lambda part: denoiser.data(part, t), micro_batch, x)

    x = process.start_std * rng.at("start").normal((n, *shape), dtype=dtype).to(device)
    x, data = carried(process, x, steps, ask)
    last = float(process.t_min)
    flat = data.flatten(1).to(torch.float64).cpu()
    spread = math.sqrt(max(float((flat - flat.mean(0)).square().mean()), 1e-300))
    times, slopes, errors = [], [], []
    for j, level in enumerate(LEVELS):
        t = min(max(float(process.time(level - math.log(spread))), last), float(process.t_max))
        keep = float(process.alpha(t) / process.alpha(last))
        std = math.sqrt(max(float(process.sigma(t) ** 2 - (keep * process.sigma(last)) ** 2), 0.0))
        noised = keep * x + std * rng.at("noise", inner=j).normal((n, *shape), dtype=dtype).to(device)
        predicted = ask(noised, t).flatten(1).to(torch.float64).cpu()
        p, y = predicted - predicted.mean(0), flat - flat.mean(0)
        square = p.square().sum(1)
        slope = float((p * y).sum() / square.sum())
        left = (p * y).sum(1) - slope * square
        times.append(t)
        slopes.append(slope)
        errors.append(float(left.std()) * math.sqrt(n) / float(square.sum()))
    at, slope, se = (torch.tensor(v, dtype=torch.float64).nan_to_num(nan=math.inf) for v in (times, slopes, errors))
    return Coupling(at, Estimate(slope, se, method="independent samples"))


def carried(process: Process, x: Tensor, steps: int, ask: Model) -> tuple[Tensor, Tensor]:
    """Noise (N, ...) carried to the last time by Heun's rule, and the predictions of the data there."""
    for t, s in pairwise(process.times(steps).tolist()):
        x = heun(Leg(process, x, t, s, ask(x, t), None, t, ask))
    last = float(process.t_min)
    return x, ask(x, last) if float(process.sigma(last)) > 0 else x


_KNOWN: WeakKeyDictionary[Denoiser, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def tested(
    denoisers: Sequence[Denoiser], shape: tuple[int, ...], dtype: torch.dtype, device: str, part: int | None
) -> dict[str, Tensor]:
    """The "coupling" (3, T) of those models that predict a flow: times, slopes and standard errors; nothing of others.

    Tested once for each model, as long as it says the same of two fixed images.
    """
    flows = [d for d in denoisers if d.predicts in ("flow", "backward flow")]
    found = [_tested(d, shape, dtype, device, part) for d in flows]
    return {"coupling": torch.cat(found, 1)} if found else {}


def _tested(denoiser: Denoiser, shape: tuple[int, ...], dtype: torch.dtype, device: str, part: int | None) -> Tensor:
    image = Rng(0).at("probe").normal((2, *shape), dtype=dtype).to(device)
    with torch.no_grad():
        now = denoiser.data(image, 0.5 * (denoiser.process.t_min + denoiser.process.t_max)).cpu()
    known = _KNOWN.get(denoiser)
    if known is None or not torch.equal(known[0], now):
        found = coupling_test(denoiser, shape, micro_batch=part, dtype=dtype, device=device)
        known = now, torch.stack([found.times, found.slope.value, found.slope.se])
        _KNOWN[denoiser] = known
    return known[1]


def coupling_remarks(shared: Mapping[str, Any]) -> list[Remark]:
    """What a run with noise has to say of a flow whose data and noise were paired.

    Args:
        shared: what the particles share; "coupling" is what `tested` returned.
    """
    if "coupling" not in shared:
        return []
    times, slope, se = shared["coupling"]
    found = Coupling(times, Estimate(slope, se, method="independent samples"))
    if found.independent:
        return []
    text = (
        f"the model is a flow whose data and noise were not drawn apart, as with optimal-transport or reflowed pairs: "
        f"{found}. Its velocity then gives no denoised prediction and no score, so steps with noise sample another law "
        "than the flow's: use TiltedFlow, or ProbabilityFlow without churn"
    )
    return [Remark(text, ALL, withholds=True)]
