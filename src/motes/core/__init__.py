"""Particles, weights, resampling, the Feynman-Kac contract, the engine (`smc.py`), and what a run holds.

Every name below is loaded when it is first used, as those of `motes` are.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motes.core.estimate.distances.wasserstein import sliced_wasserstein
    from motes.core.estimate.estimate import Estimate
    from motes.core.estimate.systematic import Systematic
    from motes.core.estimate.variance import StandardError
    from motes.core.estimate.weighted_sample import WeightedSample
    from motes.core.files.checkpoint import Checkpoint
    from motes.core.model import FeynmanKac
    from motes.core.particles import Particles
    from motes.core.registry import Registry
    from motes.core.remark import Remark
    from motes.core.run import Result, Run
    from motes.core.smc import State
    from motes.core.transition import Transition
    from motes.core.weights import ess

__all__ = [
    "Checkpoint",
    "Estimate",
    "FeynmanKac",
    "Particles",
    "Registry",
    "Remark",
    "Result",
    "Run",
    "StandardError",
    "State",
    "Systematic",
    "Transition",
    "WeightedSample",
    "ess",
    "sliced_wasserstein",
]

_HOME = {
    "estimate.estimate": "Estimate",
    "estimate.systematic": "Systematic",
    "estimate.variance": "StandardError",
    "estimate.distances.wasserstein": "sliced_wasserstein",
    "estimate.weighted_sample": "WeightedSample",
    "files.checkpoint": "Checkpoint",
    "model": "FeynmanKac",
    "particles": "Particles",
    "registry": "Registry",
    "remark": "Remark",
    "run": "Result Run",
    "smc": "State",
    "transition": "Transition",
    "weights": "ess",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module 'motes.core' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"motes.core.{_MODULE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
