"""Markov kernels on densities, one file each.

A new kernel is one new file in this folder with a final subclass of `Kernel`; the registry `kernels` finds it.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from motes.core.errors import UnknownName
from motes.kernels.hmc import HMC
from motes.kernels.kernel import Kernel, Parameters, State, Sweep, Target
from motes.kernels.moves import Moved, move
from motes.kernels.random_walk import RandomWalk

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

kernels: dict[str, type[Kernel]] = {k.name: k for k in sorted(Kernel.__subclasses__(), key=lambda k: k.name)}
"""Every kernel by its name."""


def find_kernel(kernel: str | Kernel) -> Kernel:
    """The kernel called `kernel`, with its default knobs; or `kernel` itself."""
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in kernels:
        raise UnknownName("kernel", kernel, kernels)
    return kernels[kernel]()


__all__ = [
    "HMC",
    "Kernel",
    "Moved",
    "Parameters",
    "RandomWalk",
    "State",
    "Sweep",
    "Target",
    "find_kernel",
    "kernels",
    "move",
]
