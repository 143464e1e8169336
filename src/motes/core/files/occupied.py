"""What stands where a new run would be written, and whether it would be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motes.core.files.resuming import taking_up
from motes.core.files.runfile import before, header, newest, only
from motes.core.files.visible import visible
from motes.core.model import FeynmanKac
from motes.core.result import Result
from motes.errors import FileError, MotesError

SAME = ("seed", "n", "resampling", "ess_threshold", "model", "settings", "replicas")
"""What two runs of one setup have in common, besides the recipe; the same seed then gives the same particles."""
PASSING = ("threads", "file")
"""Parts of a recipe that may differ: where a model's file lies, which counts by its digest, and what moves bits."""


def must_be_free(path: Path, setup: dict[str, Any], model: FeynmanKac | None = None) -> None:
    """A FileError where a run with this setup would replace what cannot be had again by running it.

    What may be replaced: nothing, an empty file, a link (whose target stays), a finished run of the same setup of whose
    particles the `model` says what it said then, and one whose weights are all zero, from which nothing goes on.

    Raises:
        FileError: an unfinished run, one of another setup, or something else stands at `path`, or (where that is gone
            or damaged) an unfinished run or one of another setup as the checkpoint before it.
    """
    if path.is_symlink() or (not path.exists() and not before(path).exists()):
        return
    if path.exists() and path.stat().st_size == 0 and not before(path).exists():
        return
    command = "command" in (setup["recipe"] or {})
    anew = "--overwrite" if command else f"checkpoint=motes.Checkpoint({str(path)!r}, overwrite=True)"
    elsewhere = "another --out" if command else "another path"
    try:
        (result, t, found), _ = newest(path, header)
    except FileNotFoundError:
        return
    except FileError as error:
        raise FileError(f"{error}. A new run would replace it: give {elsewhere}, or {anew}") from error
    what = f"{found['model']}, n={found['n']}, seed={found['seed']}"
    if result not in (Result.OK, Result.ALL_WEIGHTS_ZERO):
        raise FileError(
            f"{path} holds an unfinished run ({what}) up to t={t}, which a new run would replace. "
            f"`{_resume(path, found, command)}` goes on with it; {anew} begins anew in its place"
        )
    if result is Result.OK and (differ := _differences(found, setup)):
        raise FileError(
            f"{path} holds a finished run ({what}) that differs in {', '.join(differ)}, which a new run would replace: "
            f"give {elsewhere}, or {anew}"
        )
    if result is Result.OK and model is not None:
        run, _ = newest(path, only)
        try:
            with taking_up(path, model):
                for part in run.replicas or (run,):
                    model.restore(part.particles)  # says if it is another model
        except MotesError as error:
            raise FileError(
                f"{path} holds a finished run ({what}) of another model, which a new run would replace: {error}. "
                f"Or give {elsewhere}, or {anew}"
            ) from error


def _resume(path: Path, found: dict[str, Any], command: bool) -> str:
    """What goes on with a run, for whoever asks: in Python or on the command line."""
    if not command or "command" not in (found["recipe"] or {}):
        return f"motes.resume({str(path)!r}, model)"
    file = found["recipe"].get("file")
    return f"motes resume {path}" + (f" --model {visible(str(file))}" if file is not None else "")


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what two setups do not have in common; random numbers from an `Rng` are never the same."""
    a, b = _identity(one), _identity(other)
    return [k for k in {**a, **b} if a.get(k) != b.get(k) or (k == "seed" and a[k] is None)]


def _identity(setup: dict[str, Any]) -> dict[str, Any]:
    """What tells a run from another: its setup and what its command was given."""
    recipe = {f"--{k}" if k in SAME else k: v for k, v in (setup["recipe"] or {}).items() if k not in PASSING}
    if "sha256" in recipe:
        recipe["the model's file"] = recipe.pop("sha256")
    return {**recipe, **{k: setup[k] for k in SAME if k in setup}}
