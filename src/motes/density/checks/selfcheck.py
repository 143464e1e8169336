"""All checks of one density."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from motes.core.errors import MotesError, UnknownName
from motes.density.checks.batch import batch
from motes.density.checks.finding import FAILED, Checked, Finding
from motes.density.checks.gradient import gradient
from motes.density.checks.prior import prior
from motes.density.law import Law
from motes.rng import Rng

CHECKS: dict[str, Callable[[Law, Rng], Finding]] = {"batch": batch, "gradient": gradient, "prior": prior}


def check(density: Law, *, seed: int = 0, only: Sequence[str] | None = None) -> Checked:
    """Check a density: batches, gradients, and draws from the prior.

    Args:
        density: what is checked.
        seed: the result is a function of it.
        only: names of the checks; None is all.

    Raises:
        UnknownName: there is no such check.

    >>> import torch, motes
    >>> normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    >>> check(motes.Density(lambda x: -x.square().sum(-1), normal)).ok
    True
    """
    names = list(CHECKS) if only is None else list(only)
    for name in names:
        if name not in CHECKS:
            raise UnknownName("check", name, CHECKS)
    findings = []
    for name in names:
        try:
            findings.append(CHECKS[name](density, Rng(seed).at("check").at(name)))
        except MotesError as error:  # NaN, a wrong shape: said by the evaluation itself
            findings.append(Finding(name, FAILED, str(error)))
    return Checked(tuple(findings))
