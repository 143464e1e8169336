"""Whether chains can be trusted: effective sample sizes, R-hat and nested R-hat, by ArviZ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motes.core.run import Run
from motes.errors import MotesError, needing
from motes.report import numerals

INSTALL = "run.diagnose needs arviz-stats: pip install 'motes[arviz]'"
GROUPS = 8
"""Superchains of nested R-hat: with fewer chains than two a group there is none."""
R_HAT, ENOUGH = 1.01, 400
"""Vehtari et al. (2021), Rank-normalization, folding, and localization: an improved R-hat, Bayesian Analysis 16(2)."""


@dataclass(frozen=True)
class ChainRow:
    """One number of the view: mean with Monte Carlo standard error, spread, effective sample sizes, R-hat.

    `r_hat_nested` compares groups of chains (NaN with fewer than 16 chains), so it is meaningful for chains of few
    draws too.
    """

    name: str
    mean: float
    mcse: float
    sd: float
    ess_bulk: float
    ess_tail: float
    r_hat: float
    r_hat_nested: float

    @property
    def apart(self) -> float:
        """Nested R-hat where there is one: with many chains of few draws R-hat is above 1 even if all is well."""
        return self.r_hat_nested if np.isfinite(self.r_hat_nested) else self.r_hat


@dataclass(frozen=True)
class Diagnosis:
    """The rows, one for each number, and what is wrong, a sentence each."""

    chains: int
    draws: int
    rows: list[ChainRow]
    remarks: list[str]

    @property
    def least(self) -> ChainRow:
        """The row with the smallest effective sample size."""
        return min(self.rows, key=lambda r: min(r.ess_bulk, r.ess_tail))

    @property
    def worst(self) -> ChainRow:
        """The row in which chains disagree most."""
        return max(self.rows, key=lambda r: r.apart if np.isfinite(r.apart) else np.inf)

    def __str__(self) -> str:
        head = ("", "mean", "± mcse", "sd", "ESS bulk", "ESS tail", "R-hat", "nested")
        cells: list[tuple[str, ...]] = [head]
        for r in self.rows:
            mean, error = numerals.with_error(r.mean, r.mcse)
            sd = numerals.plain(r.sd, 3)
            ess = tuple(numerals.count(round(e)) if np.isfinite(e) else "-" for e in (r.ess_bulk, r.ess_tail))
            nested = f"{r.r_hat_nested:.3f}" if np.isfinite(r.r_hat_nested) else "-"
            cells.append(
                (r.name, mean, error or "?", sd, *ess, f"{r.r_hat:.3f}" if np.isfinite(r.r_hat) else "-", nested)
            )
        widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
        lines = [
            "  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(x, widths, strict=True)))
            for x in cells
        ]
        many = [f"{k} {what}{'s' * (k != 1)}" for k, what in ((self.chains, "chain"), (self.draws, "draw"))]
        return "\n".join([" of ".join(many), *lines, *self.remarks])


def diagnose(run: Run, most: int = 100_000) -> Diagnosis:
    """Effective sample sizes and R-hat of every number in the view of a run of chains, of the first `most`.

    Raises:
        ImportError: arviz-stats is not installed.
        MotesError: the run is not one of chains.
    """
    if run.shown.weighted:
        raise MotesError(f"a {run.setup['model']} run has weighted particles and no chains: see run.ess and run.trace")
    with needing(INSTALL):
        from arviz_stats.base.array import array_stats
    chains = draws = 0
    rows = []
    for name, leaf in run.shown.leaves():
        chains, draws = leaf.shape[:2]
        flat = leaf.detach().cpu().double().reshape(chains, draws, -1).numpy()
        for k in range(min(flat.shape[2], most - len(rows))):
            place = [int(i) for i in np.unravel_index(k, leaf.shape[2:])]
            rows.append(_row(array_stats, f"{name}{place if place else ''}", flat[:, :, k]))
    return Diagnosis(chains, draws, rows, [*run.remarks, *_advice(rows)])


def _row(stats: object, name: str, x: np.ndarray) -> ChainRow:
    axes = {"chain_axis": 0, "draw_axis": 1}
    chains = len(x) - len(x) % GROUPS
    nested = np.nan
    if chains >= 2 * GROUPS:
        groups = np.repeat(np.arange(GROUPS), chains // GROUPS)
        nested = float(stats.rhat_nested(x[:chains], superchain_ids=groups, **axes))  # type: ignore[attr-defined]
    return ChainRow(
        name,
        float(x.mean()),
        float(stats.mcse(x, method="mean", **axes)),  # type: ignore[attr-defined]
        float(x.std()),
        float(stats.ess(x, method="bulk", **axes)),  # type: ignore[attr-defined]
        float(stats.ess(x, method="tail", prob=(0.05, 0.95), **axes)),  # type: ignore[attr-defined]
        float(stats.rhat(x, method="rank", **axes)),  # type: ignore[attr-defined]
        nested,
    )


def _advice(rows: list[ChainRow]) -> list[str]:
    out = []
    if rows and not any(np.isfinite([r.apart, r.ess_bulk, r.ess_tail]).all() for r in rows):
        return [
            "too few chains or draws to tell whether they agree: run several chains, of some tens of draws at least"
        ]
    apart = [r for r in rows if not r.apart <= R_HAT]
    if apart:
        worst = max(apart, key=lambda r: r.apart if np.isfinite(r.apart) else np.inf)
        out.append(
            f"R-hat is above {R_HAT} for {len(apart)} of {len(rows)} numbers, {worst.apart:.3f} for {worst.name}"
        )
    few = [r for r in rows if not min(r.ess_bulk, r.ess_tail) >= ENOUGH]
    if few:
        worst = min(few, key=lambda r: min(r.ess_bulk, r.ess_tail))
        least = min(worst.ess_bulk, worst.ess_tail)
        out.append(f"the effective sample size is below {ENOUGH} for {len(few)} numbers, {least:.0f} for {worst.name}")
    return out
