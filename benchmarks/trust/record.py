"""What is kept of a row: one small JSON file, a run a line.

    {"target": ..., "sampler": ..., "n": 256, "costly": false, "runs": [
    {"seed": 0, "source": "5f0c1d2", "result": "OK", "log_evidence": -3.2, "se": .1, "means": {"a": [1.2, .1]}, ...},
    ...]}

`costly` rows, which would take more than ten minutes, have 16 runs instead of 40. Keys of a run, those that are empty
left out: `seed`; `source`, the commit of the sources; `result`, how it ended; `log_evidence` and `se`, nats, with
`freedom`, the degrees of freedom of Student's t, and `reason`, why there is no error; `means`, by function, mean and
standard error, and then degrees of freedom; `reasons`, by function, why there is none; `met`, by mode, how many
particles are in it; `remarks`, pairs of text and what it doubts; `ess`; `evaluations` in points; `cpu` seconds;
`error`, the text of what the run raised, or why it was stopped.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "trust"
DIGITS = 8


def path(target: str, sampler: str, n: int, folder: Path = RESULTS) -> Path:
    """Where a row is kept."""
    return folder / f"{target}-{sampler}-{n}.json"


def tidy(value: Any) -> Any:
    """JSON: numbers with 8 digits; NaN is null, infinity a string."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {k: tidy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(v) for v in value]
    return value


def number(value: Any) -> float:
    """What `tidy` made of a float."""
    return math.nan if value is None else float(value)


def read(file: Path) -> dict[str, Any] | None:
    """The row that a file holds; None where there is no file."""
    return json.loads(file.read_text()) if file.exists() else None


def write(file: Path, row: dict[str, Any]) -> None:
    """Write a row, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {k: v for k, v in row.items() if k != "runs"}
    runs = ",\n".join(json.dumps(tidy(r), ensure_ascii=False) for r in row["runs"])
    side = file.with_suffix(f".{os.getpid()}.tmp")
    side.write_text(json.dumps(head)[:-1] + ', "runs": [\n' + runs + "\n]}\n")
    side.replace(file)
