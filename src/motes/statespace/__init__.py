"""State-space models: particle filters, and their parameters by SMC^2."""

from motes.statespace.particle_filter import BootstrapFilter, InnerFilter
from motes.statespace.smc2 import SMC2

__all__ = [
    "SMC2",
    "BootstrapFilter",
    "InnerFilter",
]
