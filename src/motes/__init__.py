"""Draw, steer and weigh samples from any model, with particles."""

from importlib import import_module

_PUBLIC = {
    "sample": "motes.core.sample",
    "resume": "motes.core.sample",
    "Checkpoint": "motes.core.sample",
    "steps": "motes.core.smc",
    "load": "motes.core.run",
    "Run": "motes.core.run",
    "Result": "motes.core.run",
    "cite": "motes.core.cite",
    "FeynmanKac": "motes.core.model",
    "Particles": "motes.core.particles",
    "MotesError": "motes.core.errors",
    "Rng": "motes.rng",
    "Density": "motes.density",
    "Tempering": "motes.density",
    "Generation": "motes.language",
    "ReverseDiffusion": "motes.diffusion",
}
_PACKAGES = ("core", "density", "diffusion", "kernels", "language", "report", "rng")

__all__ = [*_PUBLIC, *_PACKAGES]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _PACKAGES:
        return import_module(f"motes.{name}")
    raise AttributeError(f"module 'motes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
