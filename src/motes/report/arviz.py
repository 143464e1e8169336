"""A run as an ArviZ DataTree, so that its plots and diagnostics work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from motes.core.replicas import estimating
from motes.core.run import Run
from motes.core.tree import PyTree
from motes.core.views._view import View, array
from motes.errors import MotesError, needing

if TYPE_CHECKING:
    from xarray import DataTree

INSTALL = "to_arviz needs arviz-base: pip install 'motes[arviz]'"


def to_arviz(run: Run, resampled: bool = False) -> DataTree:
    """The particles as one chain of draws, with the weights beside them; chains as the chains that they are.

    The populations of a run with replicas are a chain each, so that ArviZ says how well they agree. With
    `resampled=True` each is resampled by its own weights, and all count the same, which `run.mean` does not let them.

    Groups: `posterior` holds the view of the run, a variable per parameter, dimensions (chain, draw, ...);
    `sample_stats`, for weighted particles only, holds `log_weight` (nats, not normalised), `weight` (sums to 1) and
    `root` (slot of the time-0 ancestor); `trace` holds what each step recorded, dimension `step`. The attributes of the
    root say the log evidence, its standard error, seed, sizes and versions.

    ArviZ takes all draws as equally likely. Give it `resampled=True` for anything but the weights themselves: the draws
    are then `run.draws(n)`, n the number of particles, with equal weights.

    Args:
        run: any run whose view holds tensors or texts.
        resampled: equally weighted draws instead of weighted particles.

    Raises:
        ImportError: arviz-base is not installed.
        MotesError: the particles hold nothing that could be written down.
    """
    with needing(INSTALL):
        import arviz_base
        import xarray
    weighted = run.shown.weighted
    parts = [run] if not weighted or not run.replicas else estimating(run.replicas)
    if len({part.n for part in parts}) > 1:
        raise MotesError("the populations of this run have different sizes: give ArviZ one of run.replicas")
    found = [_variables(part.shown, part.draws(part.n) if resampled and weighted else part.view) for part in parts]
    posterior = {k: v[0] if not weighted else np.concatenate([f[k] for f in found]) for k, v in found[0].items()}
    if not posterior:
        model = run.setup["model"]
        raise MotesError(f"the particles of a {model} run are no tensors or texts, so ArviZ cannot hold them")
    stats: dict[str, np.ndarray] = {}
    if weighted:
        shape = (len(parts), parts[0].n)
        weight = np.full(run.n, 1 / run.n) if resampled else array(run.weight)
        log_weight = np.full(run.n, run.log_evidence) if resampled else array(run.log_weight)
        stats = {"log_weight": log_weight.reshape(shape), "weight": weight.reshape(shape)}
        if not resampled:
            stats["root"] = array(run.particles.root).reshape(shape)
    attributes = _attributes(run, resampled or not weighted)
    tree = arviz_base.from_dict(
        {"posterior": posterior, **({"sample_stats": stats} if stats else {})},
        sample_dims=["chain", "draw"],
        dims=_dimensions(posterior),
        check_conventions=False,
        attrs={"/": attributes, "posterior": attributes},
    )
    columns = {k: ("step", np.asarray(run.trace[k], dtype=float)) for k in run.trace if k != "t"}
    if columns:
        step = np.asarray(run.trace["t"]).astype(int)
        tree["trace"] = xarray.DataTree(xarray.Dataset(columns, coords={"step": step}))
    return tree


def _variables(shown: View, value: PyTree) -> dict[str, np.ndarray]:
    return {name.replace("/", "_"): rows[None] for name, rows in type(shown)(value).arrays().items()}


def _dimensions(posterior: dict[str, np.ndarray]) -> dict[str, list[str]]:
    return {name: [f"{name}_dim_{k}" for k in range(a.ndim - 2)] for name, a in posterior.items()}


def _attributes(run: Run, resampled: bool) -> dict[str, Any]:
    """JSON-like and free of None, so that the tree can be written to netCDF."""
    setup = run.setup
    about = {
        "quantity": setup["quantity"],
        "log_evidence": float(run.log_evidence),
        "log_evidence_se": float(run.log_evidence_se),
        "log_evidence_se_reason": run.standard_error.reason,
        "ess": float(run.ess),
        "n": run.n,
        "steps": run.particles.t,
        "seed": "" if run.seed is None else str(run.seed),  # netCDF has no integers of any size
        "result": run.result.value,
        "model": setup["model"],
        "view": setup["view"],
        "resampling": setup["resampling"],
        "seconds": run.seconds,
        "equally_weighted": int(resampled),
        "inference_library": "motes",
        "inference_library_version": setup["versions"].get("motes", ""),
    }
    return about | {f"version_{k}": str(v) for k, v in setup["versions"].items()}
