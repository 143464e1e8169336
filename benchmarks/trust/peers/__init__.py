"""Other packages on the density targets of the shelf, judged by the errors that they state themselves.

`python -m benchmarks.trust peer TARGET PEER` with an interpreter that has the package (`make bench`). Each file has
`N`, the number of its particles, live points or chains, and `run(problem, seed)`, which returns what `record.py` calls
`log_evidence`, `se`, `means` and `remarks`. The prior of a target must be made of the laws of `problem.Block.quantile`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.trust.peers.problem import Problem
from benchmarks.trust.runner import guarded
from benchmarks.trust.target import Target

PEERS = ("dynesty", "ultranest", "nautilus", "blackjax", "particles", "pymc_smc", "numpyro", "pymc")
SEEDS = 16


def find(peer: str) -> Any:
    """The module of a peer."""
    return import_module(f"{__name__}.{peer}")


def attempt(target: Target, peer: str, seed: int) -> dict[str, Any]:
    """One run of a peer, as `record` describes it."""

    def work() -> dict[str, Any]:
        problem = Problem(target)
        found = find(peer).run(problem, seed)
        return {"result": "OK"} | found | {"evaluations": float(problem.points)}

    return {"seed": seed} | guarded(work)
