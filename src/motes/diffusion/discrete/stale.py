"""What half as many steps would change, told by the paths of a run: what a prediction that was not renewed would say.

Where a long step is two short ones of which the second draws by the prediction of the first, the path of the short
steps has a density under the chain of long ones too. The log-ratio, the particle's "gap", costs no evaluation, and the
normaliser of the chain of half as many steps is the mean of exp(log_weight + gap), without bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from motes.core.estimate.systematic import Systematic
from motes.core.remark import MEANS, Remark
from motes.core.weights import log_mean_exp, normalise
from motes.diffusion.short import too_few

FEWEST = 4
"""A chain of fewer steps than this does not know what they err by: of four places, two steps and 500 particles the log
normaliser was off by more than three errors in 3 of 20 runs without a word, of four steps in none."""


def systematic(log_weight: Tensor, gap: Tensor, steps: int) -> Systematic:
    """How far the log normaliser is off: by as much as half as many steps change it, since errors are of first order.

    Args:
        log_weight, gap: (N,) nats.
        steps: of the run.
    """
    if steps < FEWEST:
        return Systematic(math.nan, 0.0, too_few(steps, "half as many", FEWEST))
    other = log_weight + gap
    if not float(other.max()) > -math.inf:
        text = f"half of the {steps} steps leave no path any weight, so nothing is known of their error: use more"
        return Systematic(math.nan, 0.0, text)
    change = log_mean_exp(log_weight) - log_mean_exp(other)
    noise = float((normalise(other) - normalise(log_weight)).square().sum().sqrt())
    text = (
        f"the log normaliser is that of the chain of {steps} steps, and differs from the model's own by more than the "
        f"particles' error: half as many steps change it by {-change:+.2g} nats, and the error bar says so. Use more "
        "steps"
    )
    return Systematic(abs(change), abs(change) - 2 * noise, text)


def doubts(log_weight: Tensor, gap: Tensor, text: str) -> list[str]:
    """`text` as a remark on the means, unless the paths are as likely under half as many steps.

    The divergence D of the two laws moves the mean of no function by more than sqrt(2 D) times its range, and goes
    unseen below 1 / (2 N).
    """
    weight = normalise(log_weight)
    far = float(-(weight * torch.where(weight > 0, gap, 0.0)).sum())
    if far <= 1 / (2 * len(gap)):
        return []
    return [Remark(f"{text} (half as many steps are {far:.2g} nats away)", MEANS)]
