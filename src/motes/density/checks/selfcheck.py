"""All checks of one density."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from motes.density.checks.batch import batch
from motes.density.checks.calibration import calibration
from motes.density.checks.finding import FAILED, SKIPPED, Checked, Finding
from motes.density.checks.geweke import geweke
from motes.density.checks.gradient import gradient
from motes.density.checks.predictive import predictive
from motes.density.checks.prior import prior
from motes.density.checks.setting import Setting
from motes.errors import MotesError, check_name
from motes.laws.law import Law
from motes.rng import Rng

OF_DENSITY: dict[str, Callable[[Law, Rng], Finding]] = {"batch": batch, "gradient": gradient, "prior": prior}
OF_SETTING: dict[str, Callable[..., Finding]] = {
    "calibration": calibration,
    "geweke": geweke,
    "predictive": predictive,
}
CHECKS = (*OF_DENSITY, *OF_SETTING)


def check(
    density: Law, *, setting: Setting | None = None, seed: int = 0, only: Sequence[str] | None = None,
    replicates: int = 100, progress: bool = False,
) -> Checked:  # fmt: skip
    """Check a density: batches, gradients, draws from the prior; with a simulator also what needs simulated data.

    Args:
        density: what is checked.
        setting: how data come about; without it calibration, Geweke's test and predictive checks are skipped.
        seed: the result is a function of it.
        only: names of the checks; None is all.
        replicates: simulated data sets of each check that needs them.
        progress: show a progress bar for each check that takes long, with the time that is left.

    Raises:
        UnknownName: there is no such check.

    >>> import torch, motes
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> check(motes.Density(lambda x: -x.square().sum(-1), normal)).ok
    True
    """
    names = list(CHECKS) if only is None else list(only)
    for name in names:
        check_name("check", name, CHECKS)
    findings = []
    for name in names:
        rng = Rng(seed).at("check").at(name)
        try:
            if name in OF_DENSITY:
                findings.append(OF_DENSITY[name](density, rng))
            elif setting is None:
                findings.append(Finding(name, SKIPPED, "it needs `simulate`, `density` and `data`: see --help"))
            else:
                findings.append(OF_SETTING[name](setting, rng, replicates, progress=progress))
        except MotesError as error:  # NaN, a wrong shape: said by the evaluation itself
            findings.append(Finding(name, FAILED, str(error)))
    return Checked(tuple(findings))
