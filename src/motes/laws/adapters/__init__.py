"""Densities from other packages: each function takes a model as it is and returns a `Law` that every sampler takes.

Each function is loaded when it is first used, and its package is asked for only then.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motes.laws.adapters.jax_function import from_jax
    from motes.laws.adapters.numpyro_model import from_numpyro
    from motes.laws.adapters.pymc_model import from_pymc
    from motes.laws.adapters.pyro_model import from_pyro
    from motes.laws.adapters.stan_model import from_stan
    from motes.laws.adapters.torch_distribution import from_distribution
    from motes.laws.adapters.torch_function import from_torch

__all__ = [
    "from_distribution",
    "from_jax",
    "from_numpyro",
    "from_pymc",
    "from_pyro",
    "from_stan",
    "from_torch",
]

_HOME = {
    "from_distribution": "torch_distribution",
    "from_jax": "jax_function",
    "from_numpyro": "numpyro_model",
    "from_pymc": "pymc_model",
    "from_pyro": "pyro_model",
    "from_stan": "stan_model",
    "from_torch": "torch_function",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
