"""Reports and tables of runs whose file is well written and says odd things: names, settings, remarks, numbers."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import torch

import motes
from fuzz import mutate
from fuzz.harness import Reader
from fuzz.readers import runs
from motes.report.html import report

WORDS = [*mutate.WORDS, "\x1b[31m", "<script>", "{{ 7 * 7 }}", "$\\frac{", "\u2066", "a\nb", "&amp;", "שלום", "%(x)s"]


def odd_text(rng: random.Random) -> str:
    """A text that a page or a chart may stumble over."""
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 4)))


def make(rng: random.Random) -> bytes:
    """A file whose digests are right, and which speaks of odd things wherever a run may."""
    _, header, tensors = runs.whole()
    header = json.loads(json.dumps({k: header[k] for k in ("format", "meta", "trees")}))
    tensors = {k: v.clone() for k, v in tensors.items()}
    meta, trees = header["meta"], header["trees"]
    meta["setup"]["settings"] = {odd_text(rng): mutate.odd_value(rng, 1), **meta["setup"]["settings"]}
    meta["setup"]["recipe"] = rng.choice([None, {odd_text(rng): mutate.odd_value(rng, 1)}])
    meta["setup"]["seed"] = rng.choice([None, 0, 2**63, 2**64 - 1])
    meta["setup"]["view"] = rng.choice(["table", "texts", "images", "chains", "other"])
    meta["setup"]["quantity"] = rng.choice(["", "log-probability", "log P of it", "{{ x }}"])
    meta["setup"]["versions"][odd_text(rng)] = odd_text(rng)
    meta["remarks"] = [{"text": odd_text(rng), "doubts": ["means"], "withholds": rng.random() < 0.5}]
    meta["references"][0]["title"] = odd_text(rng)
    view: Any = {"texts": [odd_text(rng) for _ in range(12)]}
    if rng.random() < 0.5:
        view = {"dict": {odd_text(rng): {"tensor": "particles/x"}, "b": {"value": 3}}}
    trees["view"], meta["view_is_x"] = view, rng.random() < 0.2
    trees["trace"]["dict"][odd_text(rng)] = {"tensor": "trace/ess"}
    for name in rng.sample(
        ["particles/x", "particles/log_weight", "trace/speed", "trace/entropy", "trace/log_evidence"], 3
    ):
        values = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 0.0, 5e-324])
        place = rng.randrange(len(tensors[name]) + 1)
        tensors[name][place:] = (
            values[rng.randrange(7)] if name != "particles/log_weight" else values[rng.choice([2, 4])]
        )
    return runs.sealed(header, tensors)


def read(given: bytes, folder: Path) -> None:
    """Write the page of the run, which has to be UTF-8 without anything that hides or runs."""
    path = folder / "run"
    path.write_bytes(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = motes.load(path)
        page = report({"\u202ename": run}, folder / "page.html").read_bytes().decode()
        runs.use(run)
    assert "<script>" not in page and "\u202e" not in page and "\x1b" not in page


READER = Reader("reports", make, read, count=300, slice=5)
