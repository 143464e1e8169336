"""Whether saved particles still mean what they meant when they were saved."""

from __future__ import annotations

import torch

from motes.core.files.resuming import must_agree
from motes.kernels import State
from motes.laws.law import Law


def same_values(density: Law, saved: State) -> None:
    """The density still says of the saved positions what their file says.

    Raises:
        FileError: the likelihood or the prior has changed since (other data, another function).
    """
    now = density.evaluate(saved["position"])
    # the last bits depend on the batch; a hundred thousand terms of float64 leave 10 digits at least
    close = 1e-9 if saved["position"].dtype == torch.float64 else 1e-4
    mend = "the data and the functions that began it"
    for name in ("log_likelihood", "log_prior"):
        must_agree(name, now[name], saved[name], mend, rtol=close, atol=1e2 * close)
