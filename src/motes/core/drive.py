"""A run under way: its populations one after the other, a bar, checkpoints, and what is left where it is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from tqdm.auto import tqdm

from motes.core.cite import ENGINE
from motes.core.estimate import variance
from motes.core.files.checkpoint import Writer
from motes.core.files.resuming import first_step
from motes.core.joined import alone, joined, told_of_systematic
from motes.core.model import FeynmanKac
from motes.core.remark import Remark
from motes.core.replicas import ENDED
from motes.core.resampling import Scheme
from motes.core.result import Result
from motes.core.run import Run
from motes.core.smc import State, steps
from motes.errors import AllWeightsZero, MotesError, NanLogPotential, warn
from motes.rng import Rng


@dataclass
class Drive:
    """Walks the populations of a model to their ends.

    Ctrl-C ends a run as a run that is INTERRUPTED: what was reached is returned, and no step that is half done. A
    second one, while that is made, is raised.

    Args:
        model: the model.
        setup: what the run is told by, see `Run.setup`.
        scheme: of resampling.
        sources: the seed of each population, or its random numbers.
        states: where each population stands; None where it has not begun.
        ends: how each population has ended; None where it has not.
        writer: of checkpoints.
        progress: whether to show a bar.
        callback: see `motes.sample`, as the next two.
        path: the file that the states are from, if they are from one.
    """

    model: FeynmanKac
    setup: dict[str, Any]
    scheme: Scheme
    sources: Sequence[int | Rng]
    states: list[State | None]
    ends: list[Result | None]
    writer: Writer
    progress: bool
    callback: Callable[[State], Any] | None
    max_steps: int | None
    throw: bool
    path: str | os.PathLike[str] | None = None
    stopped: bool = False
    parts: dict[int, Run] = field(default_factory=dict)

    def go(self) -> Run:
        """Walk to the end; errors and results as `motes.sample` says."""
        error, interrupted = None, False
        try:
            try:
                error = self._walk()
            except KeyboardInterrupt:
                if all(state is None for state in self.states):
                    raise
                interrupted = True
            return self._finish(error, interrupted)
        except KeyboardInterrupt:
            if interrupted or all(state is None for state in self.states):
                raise
            return self._finish(error, True)

    # ---------------------------------------------------------------- the way

    def _walk(self) -> MotesError | None:
        """Walk every population; the error that ended the run, if one did."""
        dead: MotesError | None = None
        j = 0
        with _Bar(self.model, self.progress, len(self.sources)) as bar:
            try:
                for j in range(len(self.sources)):
                    if self.ends[j] is not None:
                        continue
                    try:
                        self.ends[j] = self._one(j, bar)
                    except AllWeightsZero as error:
                        if self.states[j] is None:
                            raise
                        self.ends[j], dead = Result.ALL_WEIGHTS_ZERO, error
                    if self.stopped:
                        return None
            except NanLogPotential as error:
                if self.states[j] is None:
                    raise
                self.ends[j] = Result.NAN_LOG_POTENTIAL
                return error
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # the user's model: keep what there is, then let it through
                if any(state is not None for state in self.states):
                    self.writer.rescue(lambda: self._run(Result.INTERRUPTED, final=False), error)
                raise
        return dead if all(end is Result.ALL_WEIGHTS_ZERO for end in self.ends) else None

    def _one(self, j: int, bar: _Bar) -> Result:
        """Walk population j; how it ended."""
        s = self.setup
        walk = steps(
            self.model,
            s["n"],
            seed=self.sources[j],
            resampling=self.scheme,
            ess_threshold=s["ess_threshold"],
            start=self.states[j],
        )
        begun = self.states[j]
        if self.path is not None and begun is not None:
            walk = first_step(walk, self.path, self.model, begun.particles, self.sources[j])
        for state in walk:
            mine = self.states[j] = state if j == 0 else replace(state, replica=j)
            bar.show(mine, j)
            if self.callback is not None and self.callback(mine) is True:
                self.stopped = True
                return self._unless_done(j, Result.INTERRUPTED)
            if self.max_steps is not None and state.particles.t >= self.max_steps:
                return self._unless_done(j, Result.MAX_STEPS)
            if self.writer.due():
                self.writer.write(self._run(Result.INTERRUPTED, final=False))
        return Result.OK

    def _unless_done(self, j: int, result: Result) -> Result:
        state = self.states[j]
        return Result.OK if state is not None and self.model.done(state.particles) else result

    # ---------------------------------------------------------------- what is made of it

    def _finish(self, error: MotesError | None, interrupted: bool) -> Run:
        """The run so far, written and with its warnings; or the error that ended it, which holds the run."""
        if all(state is None for state in self.states):
            assert error is not None
            raise error
        run = self._run(self._result())
        unwritten = self.writer.finish(run)
        if error is not None and self.throw:
            error.run = run
            if unwritten is not None:
                error.add_note(str(unwritten))
            raise error
        if unwritten is not None:
            raise unwritten
        if interrupted and run.result is Result.INTERRUPTED:
            warn(self._how_to_go_on(run))
        for remark in run.remarks:
            warn(remark)
        return run

    def _result(self) -> Result:
        """How the run as a whole has ended."""
        ends = [self._end(j) for j in range(len(self.sources))]
        for worst in (Result.NAN_LOG_POTENTIAL, Result.INTERRUPTED, Result.MAX_STEPS):
            if worst in ends:
                return worst
        return Result.OK if Result.OK in ends else Result.ALL_WEIGHTS_ZERO

    def _end(self, j: int) -> Result:
        return self.ends[j] or self._unless_done(j, Result.INTERRUPTED)

    def _run(self, result: Result, *, final: bool = True) -> Run:
        """The run so far: a population alone, or all that have begun."""
        if len(self.sources) == 1:
            return self._part(0, self.setup, result)
        begun = [j for j, state in enumerate(self.states) if state is not None]
        parts = [self._part(j, alone(self.setup, j), self._end(j)) for j in begun]
        return joined(parts, self.setup, result, final=final)

    def _part(self, j: int, setup: dict[str, Any], result: Result) -> Run:
        """Population j as a run, kept once it has ended."""
        if j in self.parts:
            return self.parts[j]
        model, state = self.model, self.states[j]
        assert state is not None
        run = Run(
            particles=state.particles,
            genealogy=state.genealogy,
            trace=state.trace,
            result=result,
            view=model.view(state.particles),
            setup=setup,
            references=(*ENGINE, *self.scheme.references, *variance.REFERENCES, *model.references),
            own_error=model.standard_error(state.particles),
            systematic=model.systematic(state.particles),
            coarse=model.coarse_level(state.particles),
            score=model.score(state.particles),
            remarks=tuple(Remark.of(r) for r in model.remarks(state.particles)),
        )
        run = told_of_systematic(run)
        if self.ends[j] in ENDED and len(self.sources) > 1:
            self.parts[j] = run
        return run

    def _how_to_go_on(self, run: Run) -> str:
        where = f"t={run.particles.t}"
        if run.replicas:
            ended = sum(part.result in ENDED for part in run.replicas)
            where = f"{ended} of {len(self.sources)} populations"
        if run.seed is None:
            how = "It cannot be resumed, since its random numbers came from an Rng: begin it again, with a whole number"
        elif self.writer.path is not None:
            how = f"motes.resume({str(self.writer.path)!r}, model) goes on from here, to the same numbers"
        else:
            how = "To go on from here, to the same numbers: run.save(path), then motes.resume(path, model)"
        return f"interrupted after {where}; this run is what there is, and stands for an earlier law. {how}"


def uninterrupted(run: Run) -> Run:
    """The run, for whoever makes several: a KeyboardInterrupt where Ctrl-C has stopped it."""
    if run.result is Result.INTERRUPTED:
        raise KeyboardInterrupt
    return run


class _Bar:
    """A progress bar that shows how far the model says it is, and the effective sample size."""

    def __init__(self, model: FeynmanKac, on: bool, replicas: int):
        self.model, self.replicas = model, replicas
        self.bar = tqdm(
            total=1.0, disable=not on, desc=type(model).__name__, bar_format="{l_bar}{bar}| {elapsed}{postfix}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, state: State, j: int) -> None:
        """Show where population j stands."""
        if self.bar.disable:
            return
        p, last = state.particles, state.trace.rows[-1]
        fraction = self.model.progress(p)
        if fraction is not None:
            self.bar.n = (j + min(1.0, max(0.0, float(fraction)))) / self.replicas
        which = f"{j + 1} of {self.replicas}, " if self.replicas > 1 else ""
        self.bar.set_postfix_str(
            f"{which}t={p.t}, ess={last['ess']:.0f}/{p.n}, "
            f"families={state.genealogy.families(p.log_weight):.0f}, {self.model.quantity} {last['log_evidence']:.3f}"
        )
