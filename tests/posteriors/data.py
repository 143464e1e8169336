"""The data of the posteriors, read or simulated, and posteriordb's reference draws.

posteriordb (Magnusson et al. 2024, posteriordb: testing, benchmarking and developing Bayesian inference algorithms,
arXiv 2407.04967) is read as published from the folder that the environment variable MOTES_POSTERIORDB names:
data/NAME.json.zip and draws/POSTERIOR.json.zip.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "MOTES_POSTERIORDB"
BREAST_CANCER = Path(__file__).parents[2] / "src" / "motes" / "density" / "data" / "breast_cancer.csv"


def folder() -> Path | None:
    """Where posteriordb's files are, or None where the variable is unset."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def _read(kind: str, name: str) -> Any:
    base = folder()
    if base is None:
        raise FileNotFoundError(f"set {VARIABLE} to a folder with posteriordb's data/*.json.zip and draws/*.json.zip")
    with zipfile.ZipFile(base / kind / f"{name}.json.zip") as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def posteriordb(name: str) -> dict[str, np.ndarray]:
    """The data set `name`."""
    return {k: np.asarray(v, dtype=np.float64) for k, v in _read("data", name).items()}


def reference(posterior: str) -> dict[str, np.ndarray]:
    """The reference draws of `posterior`: (chains, draws) for each parameter."""
    chains = _read("draws", posterior)
    return {k: np.array([chain[k] for chain in chains]) for k in chains[0]}


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Wisconsin diagnostic: ones with 30 standardised measurements (569, 31), and benign or not as 1, -1 (569,)."""
    table = np.loadtxt(BREAST_CANCER, delimiter=",", skiprows=1)
    x = (table[:, :-1] - table[:, :-1].mean(0)) / table[:, :-1].std(0)
    return np.column_stack([np.ones(len(x)), x]), 2 * table[:, -1] - 1


def nes2000() -> tuple[np.ndarray, np.ndarray]:
    """National Election Study of 2000: design matrix (476, 9) with age as a factor, and party identification (476,)."""
    d = posteriordb("nes2000")
    age = [d["age_discrete"] == k for k in (2, 3, 4)]
    x = np.column_stack(
        [np.ones(len(d["income"])), d["real_ideo"], d["race_adj"], *age, d["educ1"], d["gender"], d["income"]]
    )
    return x.astype(np.float64), d["partyid7"]


def diamonds() -> tuple[np.ndarray, np.ndarray]:
    """Prices of diamonds: centred design matrix (5000, 25) with the intercept last, and log prices (5000,)."""
    d = posteriordb("diamonds")
    x = d["X"][:, 1:]
    return np.column_stack([x - x.mean(0), np.ones(len(x))]), d["Y"]


def autoregression() -> tuple[np.ndarray, np.ndarray]:
    """Design matrix (195, 6), a column of ones and the five values before, and the values (195,)."""
    d = posteriordb("arK")
    y, k = d["y"], int(d["K"])
    return np.column_stack([np.ones(len(y) - k), *(y[k - j : len(y) - j] for j in range(1, k + 1))]), y[k:]


def item_response(persons: int = 60, items: int = 20) -> np.ndarray:
    """Simulated right (1) and wrong (-1) answers (persons, items) of a two-parameter logistic model."""
    rng = np.random.default_rng(20_240_501)
    ability, difficulty = rng.normal(0, 1, persons), rng.normal(0.3, 1.2, items)
    logit = np.exp(rng.normal(0, 0.5, items)) * (ability[:, None] - difficulty)
    return np.where(rng.uniform(size=logit.shape) < 1 / (1 + np.exp(-logit)), 1.0, -1.0)


def returns(days: int = 200, level: float = -1.0, persistence: float = 0.95, noise: float = 0.25) -> np.ndarray:
    """Simulated returns (days,) whose log-variance is an autoregression of order one."""
    rng = np.random.default_rng(20_240_502)
    h = [rng.normal(0, noise / np.sqrt(1 - persistence**2))]
    for shock in rng.normal(0, noise, days - 1):
        h.append(persistence * h[-1] + shock)
    return rng.normal(size=days) * np.exp((level + np.array(h)) / 2)
