"""What a file of a run holds, and the run that is made of it once each part is what it must be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from motes.core.cite import Reference
from motes.core.estimate.coarse_level import CoarseLevel
from motes.core.estimate.systematic import Systematic
from motes.core.estimate.variance import StandardError
from motes.core.files import store as files
from motes.core.files.schema import (
    anything,
    array,
    both,
    dictionary,
    either,
    exactly,
    number,
    record,
    tensor,
    text,
    truth,
    whole,
)
from motes.core.files.visible import visible
from motes.core.history.genealogy import RECORD, Genealogy
from motes.core.joined import alone, joined
from motes.core.particles import Particles
from motes.core.remark import ALL, Remark
from motes.core.result import Result
from motes.core.run import Run
from motes.core.trace import COLUMNS, Trace
from motes.core.tree import PyTree
from motes.core.views import views
from motes.errors import FileError, MotesError, warn

Read = TypeVar("Read")


def plain(value: Any, where: str) -> str:
    """A text without what cannot be seen, since it is printed."""
    if visible(text()(value, where)) != value:
        raise FileError(f"{where} has letters that cannot be seen: {visible(value)}")
    return value


SETUP = record(
    seed=either(whole(0, (1 << 64) - 1), None),
    n=whole(1),
    resampling=plain,
    ess_threshold=number(0, 1, nan=False),
    model=plain,
    settings=dictionary(),
    quantity=plain,
    view=plain,
    versions=dictionary(text()),
    threads=whole(1),
    cpu=text(),
    recipe=either(dictionary(), None),
)
REFERENCE = exactly(key=text(), authors=text(), year=whole(), title=text(), where=text(), about=text())
REMARK = exactly(text=text(), doubts=array(text(*ALL)), withholds=truth)
ERROR = exactly(value=number(), method=text(), reason=text(), means=text(), freedom=number(0, nan=False))
SYSTEMATIC = exactly(value=number(), sure=number(), text=text())
META = record(
    t=whole(0),
    result=text(*(r.value for r in Result)),
    setup=SETUP,
    references=array(REFERENCE),
    view_is_x=truth,
    remarks=array(REMARK),
    own_error=either(ERROR, None),
    systematic=either(SYSTEMATIC, None),
)
TREES = record(particles=anything, genealogy=anything, trace=anything, view=anything, score=anything, coarse=anything)
MOST = 1 << 16
"""Replicas that a file may speak of."""
SEVERAL = record(
    result=text(*(r.value for r in Result)),
    setup=both(SETUP, record(replicas=whole(2, MOST))),
    replicas=array(META, 1),
)


def load(path: str | os.PathLike[str]) -> Run:
    """Read a run or a checkpoint that `Run.save` or `motes.sample(checkpoint=...)` wrote.

    Where the file is damaged or gone and the checkpoint before it is good, that one is read, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: the file is truncated, damaged or foreign.
    """
    return recovered(path)[0]


def before(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.previous")


def recovered(path: str | os.PathLike[str]) -> tuple[Run, bool]:
    """The run at `path`, or the checkpoint before it; and whether the file at `path` is good.

    Raises:
        FileNotFoundError, FileError: neither can be read; what is said is of the file at `path`.
    """
    run, said = newest(path, only)
    if said:
        warn(f"{said}: it stands at t={run.particles.t}")
    return run, not said


def newest(path: str | os.PathLike[str], read: Callable[[Path], Read]) -> tuple[Read, str]:
    """What `read` finds at `path` or, where that cannot be read, in the checkpoint before it.

    Returns:
        What was read, and a sentence that says so if it was the checkpoint before.

    Raises:
        FileNotFoundError, FileError: neither can be read; what is said is of the file at `path`.
    """
    try:
        return read(Path(path)), ""
    except (FileError, FileNotFoundError) as error:
        try:
            found = read(before(path))
        except (FileError, FileNotFoundError):
            raise error from None
        return found, f"{error}. The checkpoint before it, {before(path)}, is used"


def header(path: str | os.PathLike[str]) -> tuple[Result, int, dict[str, Any]]:
    """How the run of one file has ended, at which step (of the population that got farthest), and its setup."""
    meta = files.header(path)
    try:
        found = SEVERAL(meta, "the header") if "replicas" in meta else META(meta, "the header")
    except FileError as error:
        raise FileError(f"{path} is no run that motes can read: {error}") from error
    t = max(part["t"] for part in found.get("replicas", [found]))
    return Result(found["result"]), t, found["setup"]


def only(path: str | os.PathLike[str]) -> Run:
    """The run of one file, whatever stands beside it; errors as `load`."""
    trees, meta = files.read(path)
    try:
        if isinstance(meta, dict) and "replicas" in meta:
            return _several(array(TREES, 1)(trees.get("replicas"), "the replicas"), SEVERAL(meta, "the header"))
        if "replicas" in (single := META(meta, "the header"))["setup"]:
            raise FileError(f"the header speaks of {single['setup']['replicas']!r} populations, and one is there")
        return _run(TREES(trees, "the file"), single)
    except FileError as error:
        raise FileError(f"{path} is no run that motes can read: {error}") from error


def _run(trees: dict[str, PyTree], meta: dict[str, Any]) -> Run:
    """The run of parts that are the right ones, each checked against the others."""
    setup, t = meta["setup"], meta["t"]
    particles = _particles(trees["particles"], t)
    if particles.n != setup["n"]:
        raise FileError(f"the header speaks of {setup['n']} particles, and there are {particles.n}")
    genealogy = _genealogy(trees["genealogy"], particles.n, t)
    view = particles.x if meta["view_is_x"] else trees["view"]
    try:
        views.find(setup["view"])(view)
    except MotesError as error:
        raise FileError(str(error)) from error
    return Run(
        particles=particles,
        genealogy=genealogy,
        trace=_trace(trees["trace"], t + 1, particles.n),
        result=Result(meta["result"]),
        view=view,
        setup=setup,
        references=tuple(Reference(**r) for r in meta["references"]),
        own_error=None if meta["own_error"] is None else StandardError(**meta["own_error"]),
        systematic=None if meta["systematic"] is None else Systematic(**meta["systematic"]),
        coarse=None if trees["coarse"] is None else CoarseLevel.from_state(trees["coarse"], particles.n),
        score=either(tensor(None, None, None), None)(trees["score"], "score"),
        remarks=tuple(Remark.from_json(r) for r in meta["remarks"]),
    )


def _several(trees: list[dict[str, PyTree]], meta: dict[str, Any]) -> Run:
    """The run of several populations, of which some may not have begun."""
    setup, parts = meta["setup"], meta["replicas"]
    if not len(trees) == len(parts) <= setup["replicas"]:
        raise FileError(
            f"the header speaks of {len(parts)} of {setup['replicas']} populations, and {len(trees)} are there"
        )
    for j, part in enumerate(parts):
        if part["setup"] != alone(setup, j):
            raise FileError(f"population {j} has another setup than the run")
    return joined([_run(t, m) for t, m in zip(trees, parts, strict=True)], setup, Result(meta["result"]))


def _particles(population: Any, t: int) -> Particles:
    weights = tensor(torch.float64, None)
    parts = record(x=anything, log_weight=weights, ancestor=anything, root=anything, shared=anything)
    found = parts(population, "particles")
    n = len(found["log_weight"])
    slot = tensor(torch.int64, n, low=0, high=n - 1)
    ancestor, root = slot(found["ancestor"], "particles['ancestor']"), slot(found["root"], "particles['root']")
    try:
        return Particles(found["x"], found["log_weight"], ancestor, root, t, found["shared"])
    except MotesError as error:
        raise FileError(str(error)) from error


def _genealogy(state: Any, n: int, t: int) -> Genealogy:
    count = record(count=tensor(torch.int64, 4, low=0))(state, "genealogy")["count"].tolist()
    if count[:2] != [n, t]:
        raise FileError(f"the genealogy is of {count[0]} particles at t={count[1]}, and there are {n} at t={t}")
    generation, stride = count[2:]
    if generation > t or stride < 1:
        raise FileError(f"the genealogy cannot have {generation} generations and a stride of {stride} at t={t}")
    kept = 2 * n <= RECORD
    slots = tensor(torch.int32, None, n, low=0, high=n - 1)
    found = record(
        growth=tensor(torch.float64, 5),
        anchor_generation=tensor(torch.int64, None, low=0, high=generation),
        anchor_even=tensor(torch.float64, None, low=0, high=1, nan=False),
        anchor_slot=slots,
        record=slots,
        pending=slots,
    )(state, "genealogy")
    anchors = {len(found[name]) for name in ("anchor_generation", "anchor_even", "anchor_slot")}
    if not anchors <= {1, 2} or len(anchors) != 1:
        raise FileError("genealogy must have one anchor or two")
    lengths = (t // stride if kept else 0, int(kept and t % stride > 0))
    if (len(found["record"]), len(found["pending"])) != lengths:
        raise FileError(f"genealogy must record {lengths[0]} strides, not {len(found['record'])}")
    return Genealogy.from_state(found)


def _trace(state: Any, steps: int, n: int) -> Trace:
    found = dictionary(tensor(torch.float64, steps))(state, "trace")
    most = {"t": steps, "ess": n * (1 + 1e-9), "max_weight": 1, "roots": n, "resampled": 1, "seconds": 1e12}
    parts = {k: tensor(torch.float64, steps, low=0, high=most[k]) if k in most else anything for k in COLUMNS}
    return Trace.from_state(record(**parts)(found, "trace"))
