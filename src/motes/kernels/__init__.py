"""Markov kernels on densities, one file each.

A new kernel is one new file in this folder with a final subclass of `Kernel`; the registry `kernels` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from motes.errors import UnknownName, folded
from motes.kernels.adaptation.scale import fit_scale, scaled
from motes.kernels.baoab import BAOAB
from motes.kernels.barker import Barker
from motes.kernels.chees import ChEES
from motes.kernels.delayed import DelayedAcceptance
from motes.kernels.discrete_langevin import DiscreteLangevin
from motes.kernels.elliptical import EllipticalSlice
from motes.kernels.entropy import EntropyMCMC
from motes.kernels.flip import Flip
from motes.kernels.gibbs import Gibbs
from motes.kernels.gwg import GibbsWithGradients
from motes.kernels.hmc import HMC
from motes.kernels.independence import IndependenceMetropolis
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target, accepted, mean_acceptance, select
from motes.kernels.mala import MALA
from motes.kernels.malt import MALT
from motes.kernels.mams import MAMS
from motes.kernels.mclmc import MCLMC
from motes.kernels.meads import MEADS
from motes.kernels.moves import Moved, move
from motes.kernels.nuts import NUTS
from motes.kernels.pcn import PCN
from motes.kernels.pcn_langevin import PCNLangevin
from motes.kernels.polar import PolarSlice
from motes.kernels.random_walk import RandomWalk
from motes.kernels.score_repellent import ScoreRepellent
from motes.kernels.slice import Slice
from motes.kernels.stretch import Stretch
from motes.kernels.tally import Tally, Undefined, told
from motes.kernels.ula import ULA
from motes.kernels.underdamped import Underdamped

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

kernels: dict[str, type[Kernel]] = {k.name: k for k in sorted(Kernel.__subclasses__(), key=lambda k: k.name)}
"""Every kernel by its name."""


def find_kernel(kernel: str | Kernel, legal: Iterable[str] | None = None) -> Kernel:
    """The kernel called `kernel`, with its default knobs; or `kernel` itself.

    Args:
        kernel: a kernel, its name, or the name of its class; case, hyphens and underscores do not matter.
        legal: the names that an error lists, where not all kernels would do.

    Raises:
        UnknownName: there is no such kernel.
    """
    if isinstance(kernel, Kernel):
        return kernel
    known = {folded(k.__name__): k for k in kernels.values()} | {folded(name): k for name, k in kernels.items()}
    if not isinstance(kernel, str) or folded(kernel) not in known:
        raise UnknownName("kernel", kernel, kernels if legal is None else legal)
    return known[folded(kernel)]()


__all__ = [
    "BAOAB",
    "HMC",
    "MALA",
    "MALT",
    "MAMS",
    "MCLMC",
    "MEADS",
    "NUTS",
    "PCN",
    "ULA",
    "Barker",
    "ChEES",
    "DelayedAcceptance",
    "DiscreteLangevin",
    "EllipticalSlice",
    "EntropyMCMC",
    "Flip",
    "Gibbs",
    "GibbsWithGradients",
    "IndependenceMetropolis",
    "Kernel",
    "Moved",
    "PCNLangevin",
    "Parameters",
    "PolarSlice",
    "RandomWalk",
    "ScoreRepellent",
    "Slice",
    "State",
    "Stretch",
    "Sweep",
    "Tally",
    "Target",
    "Undefined",
    "Underdamped",
    "accepted",
    "find_kernel",
    "fit_scale",
    "kernels",
    "mean_acceptance",
    "move",
    "scaled",
    "select",
    "told",
]
