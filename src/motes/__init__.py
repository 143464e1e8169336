"""Draw, steer and weigh samples from any model, with particles.

Every name below is loaded when it is first used, so `import motes` costs nothing, and a package that only one domain
needs is asked for only there.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motes import core, density, diffusion, errors, kernels, language, laws, learn, report, rng, statespace, testing
    from motes.core.cite import cite
    from motes.core.files.checkpoint import Checkpoint
    from motes.core.files.runfile import load
    from motes.core.model import FeynmanKac
    from motes.core.particles import Particles
    from motes.core.run import Result, Run
    from motes.core.sample import resume, sample
    from motes.core.smc import steps
    from motes.density import Chains, Tempering
    from motes.diffusion import ReverseDiffusion
    from motes.errors import MotesError
    from motes.language import Generation
    from motes.laws import Density
    from motes.rng import Rng

    __version__: str

__all__ = [
    "Chains",
    "Checkpoint",
    "Density",
    "FeynmanKac",
    "Generation",
    "MotesError",
    "Particles",
    "Result",
    "ReverseDiffusion",
    "Rng",
    "Run",
    "Tempering",
    "cite",
    "core",
    "density",
    "diffusion",
    "errors",
    "kernels",
    "language",
    "laws",
    "learn",
    "load",
    "report",
    "resume",
    "rng",
    "sample",
    "statespace",
    "steps",
    "testing",
]

_HOME = {
    "Chains": "motes.density",
    "Checkpoint": "motes.core.files.checkpoint",
    "Density": "motes.laws",
    "FeynmanKac": "motes.core.model",
    "Generation": "motes.language",
    "MotesError": "motes.errors",
    "Particles": "motes.core.particles",
    "Result": "motes.core.run",
    "ReverseDiffusion": "motes.diffusion",
    "Rng": "motes.rng",
    "Run": "motes.core.run",
    "Tempering": "motes.density",
    "cite": "motes.core.cite",
    "load": "motes.core.files.runfile",
    "resume": "motes.core.sample",
    "sample": "motes.core.sample",
    "steps": "motes.core.smc",
}
_PACKAGES = ["errors", *(m.name for m in iter_modules(__path__) if m.ispkg and m.name != "cli")]
"""What lies here; a new domain is found by being here."""
__all__ += sorted({*_PACKAGES}.difference(__all__))


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value
    if name in _PACKAGES:
        return import_module(f"motes.{name}")
    if name == "__version__":
        return import_module("importlib.metadata").version("motes")
    raise AttributeError(f"module 'motes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
