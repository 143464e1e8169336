"""Markov kernels on densities, one file each.

A new kernel is one new file in this folder with a final subclass of `Kernel` under `@kernels.register`.
"""

from motes.kernels.adaptation.preconditioned import Preconditioned
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.kernel import (
    Kernel,
    Parameters,
    State,
    Sweep,
    Target,
    accepted,
    find_kernel,
    kernels,
    mean_acceptance,
    metropolis,
    select,
)
from motes.kernels.moves import Moved, move
from motes.kernels.tally import Tally, Undefined, told

__all__ = [
    "Kernel",
    "Moved",
    "Parameters",
    "Preconditioned",
    "State",
    "Sweep",
    "Tally",
    "Target",
    "Undefined",
    "accepted",
    "find_kernel",
    "fit_scale",
    "kernels",
    "mean_acceptance",
    "metropolis",
    "move",
    "scaled",
    "select",
    "told",
    *kernels.door(globals()),
]
