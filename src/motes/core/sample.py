"""Running a model to its end: progress, checkpoints, results, resumption."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

from tqdm.auto import tqdm

from motes.core import variance
from motes.core.checkpoint import Checkpoint, Source, Writer
from motes.core.cite import ENGINE
from motes.core.errors import AllWeightsZero, FileError, NanLogPotential, warn
from motes.core.machine import differences, machine
from motes.core.model import FeynmanKac
from motes.core.remark import EVIDENCE, Remark
from motes.core.resampling import Scheme, find_scheme
from motes.core.resuming import first_step, taking_up
from motes.core.run import Result, Run
from motes.core.smc import State, must_be_model, steps
from motes.rng import Rng


def sample(
    model: FeynmanKac,
    n: int,
    *,
    seed: int | Rng,
    resampling: str | Scheme = "systematic",
    when: float = 0.5,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: bool = True,
    callback: Callable[[State], Any] | None = None,
    max_steps: int | None = None,
    throw: bool = True,
    recipe: dict[str, Any] | None = None,
) -> Run:
    """Run `model` with `n` particles to its end.

    Args:
        model: any Feynman-Kac model.
        n: number of particles.
        seed: the run is a function of it; or an `Rng`.
        resampling: the name of a scheme, see `motes.core.resampling.schemes`.
        when: resample once the effective sample size is at most `when` * n; 0 is never, 1 is at every step.
        checkpoint: a path, written at most every minute and at the end; or `Checkpoint(path, every=seconds)`.
        progress: show a progress bar.
        callback: called with the `State` after the initial draw and after every step; returning True stops the run.
        max_steps: stop after so many steps, with the result MAX_STEPS.
        throw: raise when weights fail; with False the run comes back with the result code instead.
        recipe: JSON that says how to make the model again, kept with the run.

    Returns:
        The run. `run.result` is OK, MAX_STEPS or INTERRUPTED (the callback stopped it), and with `throw=False` also
        ALL_WEIGHTS_ZERO or NAN_LOG_POTENTIAL.

    Raises:
        NanLogPotential, AllWeightsZero: as `motes.core.smc.steps`; the error's `run` holds the last good state, and so
            does the checkpoint, if there is one.
    """
    must_be_model(model)
    scheme = find_scheme(resampling)
    walk = steps(model, n, seed=seed, resampling=scheme, when=when)
    setup = {
        "seed": int(seed) if isinstance(seed, Integral) else None,
        "n": n,
        "resampling": scheme.name,
        "when": when,
        "model": type(model).__name__,
        "settings": json.loads(json.dumps(model.settings())),
        "domain": model.domain,
        "quantity": model.quantity,
        "axes": model.axes,
        **machine(),
        "recipe": recipe,
    }
    with Writer(Checkpoint.of(checkpoint)) as writer:
        return _drive(model, walk, setup, None, writer, progress, callback, max_steps, throw)


def resume(
    path: str | os.PathLike[str],
    model: FeynmanKac,
    *,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: bool = True,
    callback: Callable[[State], Any] | None = None,
    max_steps: int | None = None,
    throw: bool = True,
) -> Run:
    """Continue a run from its checkpoint, to the particles that it would have reached without the interruption.

    Args:
        path: a checkpoint or a saved run; one that has ended OK comes back as it is,
            unless the model has more data for it.
        model: the model of that run, made anew: files hold no code.
        checkpoint: where to go on writing; None is `path` itself.

    Raises:
        FileError: the file is truncated or foreign, or the run was made by another model.
    """
    run, source = Source.read(path)
    setup = run.setup
    with taking_up(path, model):
        if run.result is Result.OK and not (setup["model"] == type(model).__name__ and model.continues(run.particles)):
            return run
    settings = json.loads(json.dumps(model.settings()))
    if setup["model"] != type(model).__name__ or setup["settings"] != settings:
        differ = [k for k in {**setup["settings"], **settings} if setup["settings"].get(k) != settings.get(k)]
        raise FileError(
            f"{path} was made by {setup['model']}, and the model given is {type(model).__name__}"
            + (f"; they differ in: {', '.join(differ)}" if differ else "")
            + ". Resume with the model that began the run, or begin a new run"
        )
    if setup["seed"] is None:
        raise FileError(f"{path} drew its random numbers from an Rng that was passed in, so it cannot be resumed")
    if changed := differences(setup):
        warn(f"the last bits of the result may not be those of a run without the interruption ({changed})")
    target = Checkpoint.of(path if checkpoint is None else checkpoint)
    assert target is not None
    with Writer(target, source.found(target)) as writer:
        source.must_be_unchanged()
        with taking_up(path, model):
            start = State(model.restore(run.particles), run.genealogy, run.trace)
        walk = steps(
            model, setup["n"], seed=setup["seed"], resampling=setup["resampling"], when=setup["when"], start=start
        )
        walk = first_step(walk, path, model, run.particles, setup["seed"])
        return _drive(model, walk, setup, start, writer, progress, callback, max_steps, throw)


def _drive(
    model: FeynmanKac,
    walk: Iterator[State],
    setup: dict[str, Any],
    state: State | None,
    writer: Writer,
    progress: bool,
    callback: Callable[[State], Any] | None,
    max_steps: int | None,
    throw: bool,
) -> Run:
    """Walk to the end, writing checkpoints; whatever happens, the last good state is kept."""
    result, error = Result.OK, None
    with _Bar(model, progress) as bar:
        try:
            for state in walk:
                bar.show(state)
                if callback is not None and callback(state) is True:
                    result = _unless_done(model, state, Result.INTERRUPTED)
                    break
                if max_steps is not None and state.particles.t >= max_steps:
                    result = _unless_done(model, state, Result.MAX_STEPS)
                    break
                if writer.due():
                    writer.write(_run(model, state, setup, Result.INTERRUPTED))
        except NanLogPotential as e:
            result, error = Result.NAN_LOG_POTENTIAL, e
        except AllWeightsZero as e:
            result, error = Result.ALL_WEIGHTS_ZERO, e
        except BaseException as e:  # the user's model or the user's Ctrl-C: keep what there is, then let it through
            if state is not None:
                reached = state
                writer.rescue(lambda: _run(model, reached, setup, Result.INTERRUPTED), e)
            raise
    if state is None:
        assert error is not None
        raise error
    run = _run(model, state, setup, result)
    unwritten = writer.finish(run)
    if error is not None and throw:
        error.run = run
        if unwritten is not None:
            error.add_note(str(unwritten))
        raise error
    if unwritten is not None:
        raise unwritten
    for remark in run.remarks:
        warn(remark)
    return run


def _unless_done(model: FeynmanKac, state: State, result: Result) -> Result:
    return Result.OK if model.done(state.particles) else result


def _run(model: FeynmanKac, state: State, setup: dict[str, Any], result: Result) -> Run:
    scheme = find_scheme(setup["resampling"])
    run = Run(
        particles=state.particles,
        genealogy=state.genealogy,
        trace=state.trace,
        result=result,
        view=model.view(state.particles),
        setup=setup,
        references=(*ENGINE, *scheme.references, *variance.REFERENCES, *model.references),
        own_error=model.standard_error(state.particles),
        systematic=model.systematic(state.particles),
        score=model.score(state.particles),
        remarks=tuple(Remark.of(r) for r in model.remarks(state.particles)),
    )
    found = run.systematic
    if found is None or run.particles_error.reason:
        return run
    unknown = math.isnan(found.value)
    if not (unknown or found.exceeds(run.particles_error.value)):
        return run
    return replace(run, remarks=(*run.remarks, Remark(found.text, EVIDENCE, withholds=unknown)))


class _Bar:
    """A progress bar that shows how far the model says it is, and the effective sample size."""

    def __init__(self, model: FeynmanKac, on: bool):
        self.model = model
        self.bar = tqdm(
            total=1.0, disable=not on, desc=type(model).__name__, bar_format="{l_bar}{bar}| {elapsed}{postfix}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, state: State) -> None:
        if self.bar.disable:
            return
        p, last = state.particles, state.trace.rows[-1]
        fraction = self.model.progress(p)
        if fraction is not None:
            self.bar.n = min(1.0, max(0.0, float(fraction)))
        self.bar.set_postfix_str(
            f"t={p.t}, ess={last['ess']:.0f}/{p.n}, {self.model.quantity} {last['log_evidence']:.3f}"
        )
