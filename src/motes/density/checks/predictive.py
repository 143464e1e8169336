"""Prior and posterior predictive summaries: whether data like the observed ones come out of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from motes.core import tree
from motes.core.drive import uninterrupted
from motes.core.sample import sample
from motes.density.annealing.tempering import Tempering
from motes.density.checks.finding import FAILED, OK, Finding
from motes.density.checks.setting import Data, Setting
from motes.rng import Rng

STATISTICS = {
    "mean": lambda v: v.mean(),
    "sd": lambda v: v.std(correction=0),
    "smallest": lambda v: v.min(),
    "largest": lambda v: v.max(),
    "median": lambda v: v.median(),
}
PARTICLES = 512
EXTREME = 1e-3
"""The two-sided tail probability below which a statistic of the observed data is said to be unlike the model's."""


def predictive(setting: Setting, rng: Rng, replicates: int = 100, progress: bool = False) -> Finding:
    """Mean, sd, smallest, largest and median of the observed data among those of data from prior and posterior.

    A posterior predictive p-value is no test at its level: the data are used twice, so it is rather close to 1/2. It
    fails where none of the replicated data sets reaches the observed one and a normal tail is below 1e-3.

    References:
        Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies,
        Statistica Sinica 6(4).
    """
    observed = statistics(setting.data)
    density = setting.first()
    _, prior = setting.drawn(rng.at("from-prior"), replicates)
    seed = int(rng.at("seed").integers((), 1 << 31))
    run = uninterrupted(sample(Tempering(density), PARTICLES, seed=seed, progress=progress))
    z = run.particles.x["position"][rng.at("choice").categorical(run.log_weight, replicates)]
    posterior = [setting.data_for(rng.at("from-posterior"), density, z, i) for i in range(replicates)]
    lines, numbers, far = [], {}, []
    for name, value in observed.items():
        row = {"observed": value}
        for what, all_data in (("prior", prior), ("posterior", posterior)):
            values = torch.tensor([statistics(d)[name] for d in all_data], dtype=torch.float64)
            above = float((values >= value).double().mean())
            low, middle, high = torch.quantile(values, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)).tolist()
            row |= {f"{what}_low": low, f"{what}_median": middle, f"{what}_high": high, f"{what}_p": above}
            if what == "posterior" and above in (0.0, 1.0):
                tail = torch.special.ndtr(-((value - values.mean()) / values.std()).abs())
                if 2 * float(tail) < EXTREME:
                    far.append((name, value, low, high))
        numbers[name] = row
        lines.append(f"{name} {value:.4g} (posterior {row['posterior_low']:.4g} to {row['posterior_high']:.4g})")
    if far:
        name, value, low, high = far[0]
        return Finding(
            "predictive", FAILED, f"the {name} of the observed data is {value:.4g}, and that of data from the "
            f"posterior lies between {low:.4g} and {high:.4g} in 95 % of cases: the model does not describe these data",
            numbers,
        )  # fmt: skip
    return Finding("predictive", OK, "the observed data look like the model's: " + ", ".join(lines), numbers)


def statistics(data: Data) -> dict[str, float]:
    """The statistics of all numbers in `data`; where it holds several tensors, of each."""
    found: dict[str, float] = {}
    leaves = [(where, leaf) for where, leaf in tree.leaves(data, "") if isinstance(leaf, Tensor)]
    for where, leaf in leaves:
        flat = leaf.double().flatten()
        for name, f in STATISTICS.items():
            found[f"{name} of {where}" if len(leaves) > 1 else name] = float(f(flat))
    return found
