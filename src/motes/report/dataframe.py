"""A run as a pandas DataFrame: a row a draw, a column a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from motes.core.replicas import estimating
from motes.core.run import Run
from motes.core.views.chains import ChainView
from motes.errors import MotesError, needing

if TYPE_CHECKING:
    from pandas import DataFrame

INSTALL = "to_dataframe needs pandas: pip install 'motes[arviz]'"


def to_dataframe(run: Run, resampled: bool = False) -> DataFrame:
    """The draws as a table: a column for each number of the view, `theta` or `theta[0, 1]`, texts in a column `text`.

    Weighted particles have two more columns, `log_weight` (nats, not normalised) and `weight` (sums to 1). Draws of
    chains have `chain` and `draw` before the parameters instead, counted from 0, and are equally likely. Of a run with
    replicas, `replica` says of which population a row is. Where a
    parameter has one of these names already, the column is called `run_weight` and so on. `attrs` says the log
    evidence, its standard error, the seed and the model.

    Args:
        run: any run whose view holds tensors or texts.
        resampled: `run.draws(n)`, n the number of particles, equally likely and without weights; nothing for chains.

    Raises:
        ImportError: pandas is not installed.
        MotesError: the particles hold nothing that could be written down.
    """
    with needing(INSTALL):
        import pandas
    by_chain, shown = not run.shown.weighted, run.shown.flat()
    if resampled and not by_chain:
        shown = type(shown)(run.draws(run.n))
    drawn = {c.name: c.values.astype(np.int64) if c.whole else c.values for c in shown.columns()}
    if not drawn:
        raise MotesError(f"the particles of a {run.setup['model']} run are no tensors or texts, so no table holds them")
    before: dict[str, np.ndarray] = {}
    after: dict[str, np.ndarray] = {}
    if isinstance(run.shown, ChainView):
        chain, draw = np.indices(run.shown.shape).reshape(2, -1)
        before = {"chain": chain, "draw": draw}
    elif not resampled:
        after = {"log_weight": run.log_weight.cpu().numpy(), "weight": run.weight.cpu().numpy()}
    parts = estimating(run.replicas)
    if len(parts) > 1 and (by_chain or not resampled):
        rows = len(next(iter(drawn.values())))
        size = [rows // len(parts) if by_chain else part.n for part in parts]
        before = {
            "replica": np.repeat([j for j, part in enumerate(run.replicas) if any(part is p for p in parts)], size),
            **before,
        }
    before, after = ({(f"run_{k}" if k in drawn else k): v for k, v in d.items()} for d in (before, after))
    table = pandas.DataFrame({**before, **drawn, **after})
    table.attrs = {
        "model": run.setup["model"],
        "log_evidence": float(run.log_evidence),
        "log_evidence_se": float(run.log_evidence_se),
        "seed": run.seed,
    }
    return table
