"""Running a model to its end: progress, checkpoints, results, resumption."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from motes.core.drive import Drive
from motes.core.files.checkpoint import Checkpoint, Source, Writer
from motes.core.files.machine import differences, machine
from motes.core.files.resuming import taking_up
from motes.core.model import FeynmanKac
from motes.core.replicas import ENDED
from motes.core.resampling import Scheme, find_scheme, schemes
from motes.core.result import Result
from motes.core.run import Run
from motes.core.smc import State, must_be_model
from motes.core.views import views
from motes.errors import FileError, MotesError, WrongType, warn
from motes.rng import Rng
from motes.rng.seed import seeded


def sample(
    model: FeynmanKac,
    n: int,
    *,
    seed: int | Rng,
    resampling: str | Scheme = "systematic",
    ess_threshold: float = 0.5,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: bool = True,
    callback: Callable[[State], Any] | None = None,
    max_steps: int | None = None,
    throw: bool = True,
    recipe: dict[str, Any] | None = None,
    replicas: int = 1,
) -> Run:
    """Run `model` with `n` particles to its end, once or several times.

    With `replicas` above 1, that many populations of `n` particles are run, which share nothing: each learns its own
    temperatures, scales and steps. The evidence is the mean of theirs, which has no bias that theirs have not; means
    weigh each population by its evidence; error bars come from the spread of the populations, with intervals by
    Student's t. Where they differ by more than their own error bars say, the run remarks on it: that is how a mode that
    some of them have lost is found. `run.replicas[j]` is population j as a run; its `seed` gives the same run alone.

    Ctrl-C returns what there is, with the result INTERRUPTED and a warning that says how to go on; a second one is
    raised.

    Args:
        model: any Feynman-Kac model.
        n: number of particles, of each population.
        seed: the run is a function of it; or an `Rng`.
        resampling: the name of a scheme, see `motes.core.resampling.schemes`.
        ess_threshold: resample once the effective sample size is at most this part of n; 0 is never, 1 at every step.
        checkpoint: a path, written at most every minute and at the end; or `Checkpoint(path, every=seconds)`. An
            unfinished run that stands there is an error, and so is one of another setup; `overwrite=True` replaces it.
        progress: show a progress bar.
        callback: called with the `State` after the initial draw and after every step; returning True stops the run.
        max_steps: stop after this number of steps, with the result MAX_STEPS.
        throw: raise when weights fail; with False the run comes back with the result code instead. A population whose
            weights are all zero counts as one with evidence zero, as long as there are others.
        recipe: JSON that says how to make the model again, kept with the run.
        replicas: how many independent populations.

    Returns:
        The run. `run.result` is OK, MAX_STEPS or INTERRUPTED (the callback or Ctrl-C stopped it), and with
        `throw=False` also ALL_WEIGHTS_ZERO or NAN_LOG_POTENTIAL.

    Raises:
        NanLogPotential, AllWeightsZero: as `motes.core.smc.steps`; the error's `run` holds the last good state, and so
            does the checkpoint, if there is one.
        FileError: the checkpoint cannot be written, or would replace a run that is not this one, finished.
    """
    must_be_model(model)
    scheme, sources = find_scheme(resampling), _sources(seed, replicas)
    if scheme.name in schemes and schemes[scheme.name] is not scheme:
        raise MotesError(f"another resampling scheme is called {scheme.name!r}: give yours a name of its own")
    setup = {
        "seed": int(seed) if isinstance(seed, Integral) else None,
        "n": n,
        "resampling": scheme.name,
        "ess_threshold": ess_threshold,
        "model": type(model).__name__,
        "settings": json.loads(json.dumps(model.settings())),
        "quantity": model.quantity,
        "view": views.find(model.shows()).kind,
        **machine(),
        "recipe": recipe,
        **({"replicas": int(replicas)} if replicas > 1 else {}),
    }
    states, ends = [None] * replicas, [None] * replicas
    with Writer(Checkpoint.of(checkpoint), setup, model=model) as writer:
        return Drive(
            model, setup, scheme, sources, [*states], [*ends], writer, progress, callback, max_steps, throw
        ).go()


def _sources(seed: int | Rng, replicas: int) -> Sequence[int | Rng]:
    """The seed of each population, or its random numbers; that of the first is the run's own."""
    if isinstance(replicas, bool) or not isinstance(replicas, Integral):
        raise WrongType(f"replicas, the number of populations, must be a whole number, not {replicas!r}")
    if replicas < 1:
        raise MotesError(f"replicas, the number of populations, must be at least 1, not {replicas}")
    if replicas == 1:
        return [seed]
    first = seeded(seed)
    if not isinstance(first, Rng):
        raise WrongType(f"replicas need a seed or an Rng, from which those of the others follow, not {seed!r}")
    others = [first.replica(j) for j in range(replicas)]
    return others if isinstance(seed, Rng) else [rng.seed for rng in others]


def resume(
    path: str | os.PathLike[str],
    model: FeynmanKac,
    *,
    resampling: Scheme | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: bool = True,
    callback: Callable[[State], Any] | None = None,
    max_steps: int | None = None,
    throw: bool = True,
) -> Run:
    """Continue a run from its checkpoint, to the particles that it would have reached without the interruption.

    Args:
        path: a checkpoint or a saved run; one that has ended OK comes back as it is, if the model is the one that made
            it, unless that has more data for it.
        model: the model of that run, made anew: files hold no code.
        resampling: the scheme of that run, where it is one that was passed in as an object.
        checkpoint: where to go on writing; None is `path` itself.

    Raises:
        FileError: the file is truncated or foreign, or the run was made by another model.
    """
    run, file = Source.read(path)
    setup, parts = run.setup, run.replicas or (run,)
    settings = json.loads(json.dumps(model.settings()))
    if setup["model"] != type(model).__name__ or setup["settings"] != settings:
        differ = [k for k in {**setup["settings"], **settings} if setup["settings"].get(k) != settings.get(k)]
        raise FileError(
            f"{path} was made by {setup['model']}, and the model given is {type(model).__name__}"
            + (f"; they differ in: {', '.join(differ)}" if differ else "")
            + ". Resume with the model that began the run, or begin a new run"
        )
    with taking_up(path, model):
        if run.result is Result.OK and not any(model.continues(part.particles) for part in parts):
            for part in parts:
                model.restore(part.particles)  # says if it is another model
            return run
    if setup["seed"] is None:
        raise FileError(f"{path} drew its random numbers from an Rng that was passed in, so it cannot be resumed")
    scheme = schemes.get(setup["resampling"]) if resampling is None else resampling
    if scheme is None or scheme.name != setup["resampling"]:
        raise FileError(
            f"{path} was resampled by {setup['resampling']!r}, a scheme of its own: resume with resampling= that scheme"
        )
    if changed := differences(setup):
        warn(f"the last bits of the result may not be those of a run without the interruption ({changed})")
    target = Checkpoint.of(path if checkpoint is None else checkpoint)
    assert target is not None
    k = setup.get("replicas", 1)
    with Writer(target, setup, file.found(target), model) as writer:
        file.must_be_unchanged()
        states: list[State | None] = [None] * k
        ends: list[Result | None] = [None] * k
        with taking_up(path, model):
            for j, part in enumerate(parts):
                states[j] = State(model.restore(part.particles), part.genealogy, part.trace, j)
                if k > 1 and part.result in ENDED and not model.continues(part.particles):
                    ends[j] = part.result
        sources = _sources(setup["seed"], k)
        drive = Drive(
            model, setup, find_scheme(scheme), sources, states, ends, writer, progress, callback, max_steps, throw, path
        )
        return drive.go()
