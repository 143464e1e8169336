"""Whether the log-densities in JAX are those of `motes`: `python -m benchmarks.posteriors.agree [NAME ...]`.

At points around draws from the prior pulled towards zero, differences of values and gradients must agree to 1e-8 of
their size. Where one program has no JAX, write the points and values of the other with `--torch FILE`, then compare
with `--jax FILE`.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

POINTS, SIZE = 6, 1e-8
GAUSSIAN = ("arK-arK", "nes2000-nes", "diamonds-diamonds")


def torch_side(names: list[str]) -> dict[str, np.ndarray]:
    """Points, values and gradients by name."""
    from tests.posteriors import posterior

    from motes.rng import Rng

    out = {}
    for name in names:
        density = posterior(name, **({"rows": "all"} if name in GAUSSIAN else {})).density()
        z = 0.5 * Rng(1).at(name).normal((POINTS, density.dim))
        state = density.evaluate(z, True)
        out[f"{name} z"] = z.numpy()
        out[f"{name} value"] = (state["log_likelihood"] + state["log_prior"]).numpy()
        out[f"{name} gradient"] = (state["likelihood_gradient"] + state["prior_gradient"]).numpy()
    return out


def jax_side(theirs: dict[str, np.ndarray], names: list[str]) -> int:
    """Print the largest relative difference of each; the number of posteriors that disagree."""
    import jax
    from benchmarks.posteriors.densities import DENSITIES

    wrong = 0
    for name in names:
        log_density, dim = DENSITIES[name]()
        z, value, gradient = (theirs[f"{name} {what}"] for what in ("z", "value", "gradient"))
        assert z.shape[1] == dim, (name, z.shape, dim)
        mine, mine_gradient = map(np.asarray, jax.vmap(jax.value_and_grad(log_density))(z))
        off = (mine - value) - (mine - value)[0]
        error = max(
            np.abs(off).max() / (1 + np.abs(value).max()),
            np.abs(mine_gradient - gradient).max() / (1 + np.abs(gradient).max()),
        )
        wrong += not error < SIZE
        print(f"{name:45} d {dim:4}  largest relative difference {error:.1e}{'' if error < SIZE else '  WRONG'}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--torch", help="write this side to a file")
    parser.add_argument("--jax", help="compare with this file")
    a = parser.parse_args()
    from tests.posteriors import MORE, REFERENCED

    names = a.names or [*REFERENCED, *MORE]
    if a.torch:
        np.savez(a.torch, **torch_side(names))
        return 0
    theirs = dict(np.load(a.jax)) if a.jax else torch_side(names)
    return 1 if jax_side(theirs, names) else 0


if __name__ == "__main__":
    sys.exit(main())
